"""The log of what staff did: Django's own, with whose organization each entry is about.

Django logs what forms save. Everything else that staff do to an object (a button, an action on a
selection, a job in the background) is logged by whoever has done it, with ``record``.
"""

from collections.abc import Iterable
from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.db import models, transaction

# Rows of one INSERT: what is done to thousands at once is logged for each.
BATCH = 1000


class OrganizationOfEntry(models.Model):
    """Whose members may read an entry of the log; entries without one are the superusers'.

    Written with the entry and not looked up when it is read: the object may be gone by then, and
    who deleted it is what its organization will ask.
    """

    entry = models.OneToOneField(
        LogEntry, on_delete=models.CASCADE, primary_key=True, related_name="about"
    )
    organization = models.ForeignKey(
        "offers.Organization", on_delete=models.CASCADE, related_name="+", db_index=False
    )

    class Meta:
        verbose_name = "note in the log of staff actions"
        verbose_name_plural = "notes in the log of staff actions"
        indexes: ClassVar = [
            models.Index(fields=["organization", "-entry"], name="log_of_organization"),
        ]

    def __str__(self) -> str:
        return f"entry {self.entry_id}"


def record(
    actor: User | None, *objects: models.Model, message: str | list[Any], flag: int = CHANGE
) -> list[LogEntry]:
    """Log that ``actor`` did what ``message`` says to ``objects``, which are of one model.

    Called by pages, actions and background jobs, after it was done (before, if it is a deletion).
    One without an ``actor`` (a sweep) is logged elsewhere, as a transition. Raises nothing of its
    own.
    """
    if actor is None:
        return []
    entries: list[LogEntry] = []
    for start in range(0, len(objects), BATCH):
        some = objects[start : start + BATCH]
        with transaction.atomic():
            logged = LogEntry.objects.log_actions(actor.pk, some, flag, message)
            _note_organizations(some, logged)
        entries += logged
    return entries


def _note_organizations(objects: Iterable[models.Model], entries: Iterable[LogEntry]) -> None:
    """By the same path that the objects' own pages are open by (``offers.scoped_admin``)."""
    model: Any = type(next(iter(objects)))
    path = getattr(admin.site._registry.get(model), "organization", None)
    if path is None:
        return
    found = model._default_manager.filter(pk__in=[thing.pk for thing in objects])
    homes = {str(pk): home for pk, home in found.values_list("pk", path)}
    OrganizationOfEntry.objects.bulk_create(
        OrganizationOfEntry(entry=entry, organization_id=homes[str(entry.object_id)])
        for entry in entries
        if str(entry.object_id) in homes
    )
