"""The floor: the least that Django does for such an answer. See ``views``."""
