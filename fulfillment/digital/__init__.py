"""Content to open and access codes to redeem."""
