"""Which confirmations of an import were carried out: each is, once.

A button that is pressed twice sends the same file twice, and new offers would be made twice.
"""

import uuid
from datetime import datetime, timedelta
from typing import ClassVar

from django.db import IntegrityError, models, transaction

# Longer than a preview can be confirmed.
KEPT = timedelta(days=1)


class ImportedAlready(Exception):
    """The file of this preview was imported before."""


class ImportedFile(models.Model):
    """The number of a preview that was confirmed; unique, and written with what it imported."""

    id = models.UUIDField(primary_key=True)
    at = models.DateTimeField()

    class Meta:
        indexes: ClassVar = [models.Index(fields=["at"], name="imported_file_by_age")]

    def __str__(self) -> str:
        return f"{self.id}"


def claim(nonce: uuid.UUID, *, now: datetime) -> None:
    """Take note that a preview is imported; raises ``ImportedAlready``.

    Called within the import's transaction: a second one waits here until the first has committed,
    or was undone.
    """
    try:
        with transaction.atomic():
            ImportedFile.objects.create(id=nonce, at=now)
    except IntegrityError:
        raise ImportedAlready from None


def forget(*, now: datetime) -> None:
    """Drop what nobody can confirm any more; called after an import, outside its transaction."""
    ImportedFile.objects.filter(at__lt=now - KEPT).delete()
