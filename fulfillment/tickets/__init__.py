"""A better ticket: the attendee's registration moves to the tier that was bought."""
