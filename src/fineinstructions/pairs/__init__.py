"""Matches to drafts, expanded drafts and judged pairs."""
