"""The e-mails that a local run sent, read from its folder for the pages and the command."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

from django.conf import settings


@dataclass(frozen=True)
class File:
    """What came attached to a letter."""

    name: str
    mimetype: str
    content: bytes


class Letter:
    """One e-mail; ``name`` is its file's, without ``.eml``."""

    def __init__(self, path: Path) -> None:
        message = message_from_bytes(path.read_bytes(), policy=policy.default)
        assert isinstance(message, EmailMessage)
        self.name = path.stem
        self.sent_at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        self._message = message

    @property
    def subject(self) -> str:
        return str(self._message["Subject"] or "").strip()  # one that was folded begins with " "

    @property
    def sender(self) -> str:
        return str(self._message["From"] or "")

    @property
    def to(self) -> str:
        return str(self._message["To"] or "")

    @property
    def text(self) -> str:
        return self._body("plain")

    @property
    def html(self) -> str:
        return self._body("html")

    @property
    def files(self) -> list[File]:
        return [
            File(
                name=part.get_filename() or "attachment",
                mimetype=part.get_content_type(),
                content=part.get_payload(decode=True) or b"",
            )
            for part in self._message.iter_attachments()
        ]

    def _body(self, kind: str) -> str:
        part = self._message.get_body((kind,))
        return str(part.get_content()).replace("\r\n", "\n") if part else ""


def folder() -> Path | None:
    """Where the e-mails are; None if EMAIL_URL sends them elsewhere."""
    path = settings.EMAIL_FILE_PATH
    return Path(path) if settings.EMAIL_BACKEND.startswith(__package__) and path else None


def newest(limit: int) -> Iterator[Letter]:
    """The last ones, the newest first."""
    kept = folder()
    paths = sorted(kept.glob("*.eml"), reverse=True) if kept else []
    return map(Letter, paths[:limit])


def find(name: str) -> Letter | None:
    """The letter of this name; the folder is looked through, so that a name is never a path."""
    kept = folder()
    paths = kept.glob("*.eml") if kept else ()
    return next((Letter(path) for path in paths if path.stem == name), None)
