"""Accounts that attendees open by themselves: registration, forgotten and changed passwords."""
