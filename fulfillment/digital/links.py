"""The signed link to what was bought: a right for some hours, checked again at each use.

It names the purchase's delivery, not a file: whatever the organizer has put there since is what
opens. It works without a login, so that it can be given to a player or a download manager, and so
it is kept out of caches, referrers, e-mails and logs.
"""

import uuid
from datetime import datetime, timedelta

from django.conf import settings
from django.core import signing
from django.db.models import F
from django.utils.translation import gettext_lazy as _

from fulfillment.digital.errors import (
    ContentWithdrawn,
    LinkExpired,
    LinkUnknown,
    NothingToOpen,
)
from fulfillment.digital.models import DigitalDelivery
from fulfillment.states import Status
from purchases.states import Status as PurchaseStatus

# A dot, because a colon in a path is percent-encoded by some clients.
SIGNER = signing.TimestampSigner(sep=".", salt="fulfillment.digital.links")

REFUNDING = _("Your money is on its way back, so this can't be opened any more.")
REFUNDED = _("This purchase was refunded, so it can't be opened any more.")
REVOKED = _("This was taken back by the organizer, so it can't be opened any more.")


def token_for(fulfillment_id: uuid.UUID) -> str:
    """A fresh token, valid for ``CONTENT_LINK_HOURS``; anybody who has it can open the content."""
    return SIGNER.sign(fulfillment_id.hex)


def opened_by(token: str) -> DigitalDelivery:
    """The delivery, with its content, that ``token`` opens now.

    Called at each use. Raises ``LinkUnknown``, ``LinkExpired``, ``ContentWithdrawn`` and
    ``NothingToOpen``. Locks nothing: ``count`` asks once more.
    """
    try:
        signed = SIGNER.unsign(token, max_age=timedelta(hours=settings.CONTENT_LINK_HOURS))
    except signing.SignatureExpired:
        raise LinkExpired from None
    except signing.BadSignature:
        raise LinkUnknown from None
    delivery = (
        DigitalDelivery.objects.select_related("content", "fulfillment__purchase")
        .filter(pk=uuid.UUID(hex=signed))
        .first()
    )
    if delivery is None:
        raise LinkUnknown
    refuse_unless_handed_out(delivery)
    if not delivery.content.can_be_opened:
        raise NothingToOpen
    return delivery


def refuse_unless_handed_out(delivery: DigitalDelivery) -> None:
    """Raise ``ContentWithdrawn``, which says why, unless it is the buyer's now."""
    fulfillment = delivery.fulfillment
    if fulfillment.is_handed_out:
        return
    if fulfillment.purchase.status == PurchaseStatus.REFUNDING:
        raise ContentWithdrawn(REFUNDING)
    if fulfillment.purchase.status == PurchaseStatus.PAID:
        raise ContentWithdrawn(REVOKED)
    raise ContentWithdrawn(REFUNDED)


def count(delivery: DigitalDelivery, *, now: datetime) -> None:
    """Count one download, if it is still the buyer's: a refund may have come since it was opened.

    Called before the first byte leaves, outside any transaction. Raises ``ContentWithdrawn``.
    """
    counted = DigitalDelivery.objects.filter(
        pk=delivery.pk,
        fulfillment__status=Status.FULFILLED,
        fulfillment__purchase__status=PurchaseStatus.PAID,
    ).update(downloads=F("downloads") + 1, last_downloaded_at=now)
    if not counted:
        delivery.fulfillment.refresh_from_db()
        refuse_unless_handed_out(delivery)
