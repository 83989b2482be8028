"""Crash points: each step is killed before and after whatever it leaves behind, one by one."""
