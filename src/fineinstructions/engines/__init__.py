"""Where work units run."""
