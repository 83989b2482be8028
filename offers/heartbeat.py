"""When the worker last did what beat asked of it: what tells the back-office that it lives.

In PostgreSQL, which is there whenever anything is, and not on Redis, which the worker outlives.
"""

from datetime import datetime

from django.db import models


class Heartbeat(models.Model):
    """One row, of the newest time."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.at}"


def beat(*, now: datetime) -> None:
    """Note that a task is run; every minute is enough."""
    Heartbeat.objects.update_or_create(pk=1, defaults={"at": now})


def last() -> datetime | None:
    """When that was last, ``None`` if never: no worker, or one without its beat."""
    return Heartbeat.objects.values_list("at", flat=True).first()
