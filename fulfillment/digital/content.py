"""The file of an offer: stored first, then put in place, then the one before it is deleted."""

import uuid
from datetime import datetime
from typing import Any

import structlog
from django.core.files import File
from django.db import connection, transaction

from fulfillment.digital.errors import ContentNotStored
from fulfillment.digital.models import DigitalContent
from fulfillment.digital.storage import random_name, shown_name
from offers.contention import retried

logger = structlog.get_logger(__name__)


def put_file(offer_id: uuid.UUID, upload: File, *, now: datetime) -> DigitalContent:
    """Make ``upload`` what the offer's buyers open, also those of before. Returns the content.

    It takes the place of a file or an address. Called by admin, outside any transaction, since the
    storage may be a network away and the file large: the connection is given back meanwhile. A
    crash in between leaves a file that nothing refers to, never a row without its file. Raises
    ``ContentNotStored``.
    """
    _step_aside()
    storage = _storage()
    try:
        stored = storage.save(random_name(), upload)
    except Exception as error:
        logger.exception("content was not stored", offer_id=str(offer_id))
        raise ContentNotStored from error  # each storage has errors of its own
    try:
        content, before = _exchange(
            offer_id,
            file=stored,
            file_name=shown_name(upload.name or ""),
            uploaded_at=now,
            url="",
        )
    except BaseException:
        _delete(stored)
        raise
    _delete(before)
    return content


def remove_file(offer_id: uuid.UUID) -> None:
    """Take the file away, also from those who have bought; called by admin, as ``put_file`` is."""
    _, before = _exchange(offer_id, file="", file_name="", uploaded_at=None)
    _delete(before)


@retried
def _exchange(offer_id: uuid.UUID, **changes: Any) -> tuple[DigitalContent, str]:
    with transaction.atomic():
        DigitalContent.objects.get_or_create(offer_id=offer_id)
        content = DigitalContent.objects.select_for_update(no_key=True).get(offer_id=offer_id)
        before = content.file.name or ""
        for field, value in changes.items():
            setattr(content, field, value)
        content.save(update_fields=list(changes))
    return content, before


def _delete(name: str) -> None:
    """Delete a file that nothing refers to any more; what stays behind does no harm."""
    if not name:
        return
    _step_aside()
    try:
        _storage().delete(name)
    except Exception as error:  # noqa: BLE001 - each storage has errors of its own
        logger.warning("old content was not deleted", name=name, error=str(error))


def _step_aside() -> None:
    """Give the database connection back before the storage is asked."""
    if connection.in_atomic_block:
        raise RuntimeError("A storage must not be asked inside a transaction.")
    connection.close()


def _storage() -> Any:
    return DigitalContent._meta.get_field("file").storage
