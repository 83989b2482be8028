"""Actions on thousands of rows, done by the worker while staff watch."""
