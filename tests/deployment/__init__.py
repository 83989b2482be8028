"""The deployment as its files describe it, run without containers."""
