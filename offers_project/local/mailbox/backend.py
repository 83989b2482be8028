"""Where a local run's e-mails go: one file a message. The settings choose it for `filemail:`."""

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from django.conf import settings
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend


class EmailBackend(BaseEmailBackend):
    """Django's own would put several messages into one file, with lines of dashes between them."""

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        """Write each, whole or not at all; the files' names are in order of time."""
        folder = Path(settings.EMAIL_FILE_PATH)
        folder.mkdir(parents=True, exist_ok=True)
        for message in email_messages:
            name = f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}-{secrets.token_hex(4)}"
            new = folder / f"{name}.new"
            new.write_bytes(message.message().as_bytes(linesep="\r\n"))
            new.rename(folder / f"{name}.eml")
        return len(email_messages)
