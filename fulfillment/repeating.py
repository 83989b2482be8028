"""What staff have done once more for a purchase: its confirmation sent, its delivery tried."""

import uuid
from datetime import datetime, timedelta

from django.contrib.auth.models import User
from django.db import transaction

from fulfillment import delivery
from fulfillment.errors import FulfillmentNotFound, NothingToConfirm, SentJustNow
from fulfillment.models import Fulfillment
from fulfillment.states import Status
from offers.contention import retried
from purchases import mail
from purchases import transitions as purchases
from purchases.activity import log_activity
from purchases.models import Email, Purchase
from purchases.states import Status as PurchaseStatus

# The same e-mail again within this time is taken for a second click.
SENT_LATELY = timedelta(minutes=2)


@retried
def resend_confirmation(
    purchase_id: uuid.UUID, *, now: datetime, source: str, actor: User | None = None
) -> str:
    """Send the buyer once more what says what they have now; returns which e-mail that is.

    Called by admin; locks the purchase and its fulfilment, so that of two clicks one is refused.
    It is the link to the content, the ticket, the parcel's or the booking's e-mail, and the receipt
    where there is none of these. Raises ``PurchaseNotFound``, ``NothingToConfirm`` and
    ``SentJustNow``.
    """
    with transaction.atomic():
        purchase = purchases.lock(purchase_id)
        fulfillment = _lock_of(purchase)
        _refuse_if_nothing_is_theirs(purchase, fulfillment)
        if fulfillment is None and purchase.fulfillment_due:
            raise SentJustNow("It was paid a moment ago: the first e-mail is still to be sent.")
        letter = mail.Letter(Email.Occasion.CONFIRMED)
        if fulfillment is not None:
            letter = delivery.DELIVERERS[fulfillment.type].letter(fulfillment, now=now) or letter
        _refuse_if_it_goes_out_anyway(purchase, letter.occasion, now=now)
        mail.enqueue(
            purchase,
            letter.occasion,
            now=now,
            reference=f"resent {now.isoformat()}",
            attachments=letter.attachments,
            requested_by=actor,
        )
        said = {"source": source, "occasion": letter.occasion}
        transaction.on_commit(lambda: log_activity("resend_confirmation", purchase, **said))
    return str(letter.occasion)


def _lock_of(purchase: Purchase) -> Fulfillment | None:
    found = Fulfillment.objects.select_for_update(no_key=True).filter(purchase=purchase).first()
    if found is not None:
        found.purchase = purchase
    return found


def _refuse_if_nothing_is_theirs(purchase: Purchase, fulfillment: Fulfillment | None) -> None:
    if purchase.status != PurchaseStatus.PAID:
        raise NothingToConfirm(status=purchase.get_status_display().lower())
    if fulfillment is not None and fulfillment.status == Status.REVOKED:
        raise NothingToConfirm(status="paid, but what was bought was taken back")
    if not mail.has_address(purchase.user):
        raise NothingToConfirm(status="of a buyer without an e-mail address")


def _refuse_if_it_goes_out_anyway(purchase: Purchase, occasion: str, *, now: datetime) -> None:
    same = Email.objects.filter(purchase=purchase, occasion=occasion)
    # What is put off because the mail server is away is sent by itself when that is back.
    if same.filter(state=Email.State.WAITING).exists():
        raise SentJustNow("This e-mail waits to be sent already: it will be, by itself.")
    if same.filter(created_at__gt=now - SENT_LATELY).exists():
        raise SentJustNow


def retry_delivery(
    purchase_id: uuid.UUID, *, now: datetime, source: str, actor: User | None = None
) -> Fulfillment:
    """``delivery.retry`` for who knows the purchase; called by admin. Raises the same."""
    found = Fulfillment.objects.filter(purchase=purchase_id).values_list("pk", flat=True).first()
    if found is None:
        raise FulfillmentNotFound("Nothing of this purchase is to be delivered yet.")
    return delivery.retry(found, now=now, source=source, actor=actor)
