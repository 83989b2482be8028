"""Django's PostgreSQL backend, for a server that may restart at any time: see ``base.py``."""
