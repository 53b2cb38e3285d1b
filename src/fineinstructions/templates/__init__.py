"""Queries to instruction templates to a template index."""
