"""A service at an agreed time: slots that attendees pick, or a time that staff set."""
