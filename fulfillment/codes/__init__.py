"""Codes that attendees show at an event, as a QR code or typed, and the page that checks them."""
