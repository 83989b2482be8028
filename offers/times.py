"""Points in time in JSON, as DRF's fields write them: for what is written by hand."""

from datetime import UTC, datetime


def written(at: datetime | None) -> str | None:
    """``at`` in UTC as ISO 8601; nothing for no time."""
    return f"{at.astimezone(UTC).replace(tzinfo=None).isoformat()}Z" if at else None
