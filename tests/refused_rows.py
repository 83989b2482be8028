"""A row that PostgreSQL refuses, and quotes: with somebody's name and address in it."""

from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from offers_project.accounts.models import AccountLetter

# Of several lines, among them what PostgreSQL's own begin with; it quotes 64 bytes of each value.
NAME = "Anna Secret\n\nDuring handling of\nAnna Wolf"
ADDRESS = "Hidden street 5\nCONTEXT:  none\n\n12345 Nowhere"
SECRETS = ("Anna Secret", "Anna Wolf", "Hidden street 5", "12345 Nowhere")


def refuse_row(*args: Any, **kwargs: Any) -> None:
    """Raise PostgreSQL's ``IntegrityError``; may stand in for any function."""
    now: Any = timezone.now()
    missing: Any = None
    with transaction.atomic():
        AccountLetter.objects.create(name=NAME, address=ADDRESS, due_at=missing, created_at=now)


def refused_row() -> IntegrityError:
    try:
        refuse_row()
    except IntegrityError as error:
        return error
    raise AssertionError("PostgreSQL took the row.")
