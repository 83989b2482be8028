"""Stands before the real one: production doesn't have it, and openpyxl would load it."""

raise ImportError("not in requirements.txt")
