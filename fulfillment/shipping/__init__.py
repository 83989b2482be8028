"""Merchandise: sent to the buyer, or collected at the event."""
