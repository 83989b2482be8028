"""Who changed what about an offer: one entry a change, whichever way it came.

django-simple-history keeps the table and hears of every ``save``; what it would write is decided
here. Each save would be an entry of its own, and saving a form is up to five of them; and the
counters, which every purchase writes, are no change that anybody made.
"""

import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from django.apps import apps
from django.contrib.auth.models import User
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.utils import timezone
from simple_history.models import HistoricalRecords

# So many offers are read and written by one statement.
BATCH = 500
TARGETS = ("target_sessions", "target_ticket_tiers")


class Targets(models.Model):
    """Columns of an entry: the keys of the sessions and tiers, sorted, which may be gone by now."""

    target_sessions = ArrayField(models.BigIntegerField(), default=list)
    target_ticket_tiers = ArrayField(models.BigIntegerField(), default=list)

    class Meta:
        abstract = True


@dataclass
class _Change:
    """What was saved so far; offer -> whether it is new."""

    actor: User | None
    reason: str
    offers: dict[uuid.UUID, bool] = field(default_factory=dict)


_change: ContextVar[_Change | None] = ContextVar("change", default=None)


@contextmanager
def together(*, actor: User | None = None, reason: str = "") -> Iterator[None]:
    """Write one entry an offer for all that is saved within, as the block ends.

    Called inside the transaction that saves, so that the entry is there if the change is. Without
    ``actor`` it is whoever sent the request. A block within another is part of that one.
    """
    if _change.get() is not None:
        yield
        return
    change = _Change(actor, reason)
    token = _change.set(change)
    try:
        yield
    finally:
        _change.reset(token)
    _write(change)


def note(offer_ids: Iterable[uuid.UUID], *, is_new: bool = False) -> None:
    """Have an entry written for offers that were changed; after an ``update``, which tells nobody.

    At the end of the block that it is ``together`` with, or at once.
    """
    change = _change.get()
    if change is None:
        _write(_Change(None, "", dict.fromkeys(offer_ids, is_new)))
        return
    for offer_id in offer_ids:
        change.offers[offer_id] = change.offers.get(offer_id, False) or is_new


class OfferHistory(HistoricalRecords):
    """The history of ``Offer`` and of its targets, without what is no person's doing."""

    def __init__(self, **options: Any) -> None:
        super().__init__(bases=(Targets,), **options)

    def finalize(self, sender: Any, **kwargs: Any) -> None:
        super().finalize(sender, **kwargs)
        if sender is self.cls:
            for name in TARGETS:
                # Targets are set on their own, without a save: these tables know no other way.
                through = getattr(sender, name).through
                models.signals.m2m_changed.connect(self.targets_changed, sender=through, weak=False)

    def post_save(self, instance: Any, created: Any, using: Any = None, **kwargs: Any) -> None:
        """Note a save of something that is kept; a purchase's writes cost nothing here."""
        written = kwargs.get("update_fields")
        kept = {each.name for each in self.fields_included(instance)}
        if not kwargs.get("raw") and (written is None or kept & set(written)):
            note([instance.pk], is_new=created)

    def targets_changed(
        self, *, instance: Any, action: str, pk_set: Any, reverse: bool, **_: Any
    ) -> None:
        if action in ("post_add", "post_remove", "post_clear"):
            note(pk_set or () if reverse else [instance.pk])


def _write(change: _Change) -> None:
    """Write the entries: of what is stored now, and only where it isn't what the last one says."""
    offer_ids = list(change.offers)
    for start in range(0, len(offer_ids), BATCH):
        _write_batch(change, offer_ids[start : start + BATCH])


def _write_batch(change: _Change, offer_ids: list[uuid.UUID]) -> None:
    offer, entry = (apps.get_model("offers", name) for name in ("Offer", "HistoricalOffer"))
    columns = [each.attname for each in entry.tracked_fields]
    known = [offer_id for offer_id in offer_ids if not change.offers[offer_id]]
    newest = entry.objects.filter(id__in=known).order_by("id", "-history_id").distinct("id")
    last = {each["id"]: each for each in newest.values(*columns, *TARGETS)} if known else {}
    stored = {each["id"]: each for each in offer.objects.filter(pk__in=offer_ids).values(*columns)}
    for name in TARGETS:
        for values in stored.values():
            values[name] = []
        [key] = (
            each for each in getattr(offer, name).through._meta.fields[1:] if each.name != "offer"
        )
        rows = getattr(offer, name).through.objects.filter(offer__in=offer_ids)
        for offer_id, target in rows.order_by(key.attname).values_list("offer_id", key.attname):
            stored[offer_id][name].append(target)
    made = {
        "history_date": timezone.now(),
        "history_user": change.actor or _caller(),
        "history_change_reason": change.reason[:100] or None,
    }
    entry.objects.bulk_create(
        entry(**values, **made, history_type="+" if change.offers[offer_id] else "~")
        for offer_id, values in stored.items()
        if last.get(offer_id) != values
    )


def _caller() -> User | None:
    """Who sent the request that is being answered; DRF puts the token's user there too."""
    request = getattr(HistoricalRecords.context, "request", None)
    user = getattr(request, "user", None)
    return user if user is not None and user.is_authenticated else None
