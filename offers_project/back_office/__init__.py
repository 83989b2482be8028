"""Admin as organizers and staff see it: who gets in, how to get about, what it looks like."""
