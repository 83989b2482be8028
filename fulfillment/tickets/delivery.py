"""Moving a registration to the tier that was bought, and back.

Lock order: the purchase, its fulfilment (the engine has both), then the registration, under whose
lock the chain of its upgrades is read and changed.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.db import transaction
from django.urls import reverse

from fulfillment.codes import qr, text
from fulfillment.errors import CannotDeliver
from fulfillment.models import Fulfillment
from fulfillment.tickets.models import TicketUpgrade
from offers.models import Offer, Registration, TicketTier
from purchases import mail
from purchases.activity import alert
from purchases.models import Purchase

# What ``describe`` reads, as lookups from the fulfilment.
PREFETCH = ("ticket_upgrade__from_tier", "ticket_upgrade__to_tier")


def deliver(fulfillment: Fulfillment, *, now: datetime) -> bool:
    """Move the buyer's registration to the offer's tier, with a new code for it.

    One that was paid for before another, and had to wait, goes below that one in the chain: the
    registration stays where the later one has put it. However many units were bought, it is one
    upgrade: the buyer has one registration. Who has the tier already gets the code as well, and a
    refund leaves them where they are. Raises ``CannotDeliver`` for an offer without a tier and a
    buyer without a registration.
    """
    if TicketUpgrade.objects.filter(fulfillment=fulfillment).exists():
        return True
    purchase = fulfillment.purchase
    tier = _tier_of(purchase)
    registration = _lock_registration(purchase)
    upgrade = TicketUpgrade.objects.create(
        fulfillment=fulfillment,
        registration=registration,
        from_tier_id=registration.ticket_tier_id,
        to_tier=tier,
        code=text.new(),
        applied_at=now,
    )
    following = upgrade.paid_later().filter(revoked_at=None).first()
    if following is None:
        _move(registration, tier.pk)
    else:
        upgrade.from_tier_id, following.from_tier_id = following.from_tier_id, tier.pk
        for changed in (upgrade, following):
            changed.save(update_fields=["from_tier"])
    said = _upgraded(upgrade)
    mail.enqueue(purchase, said.occasion, now=now, attachments=said.attachments)
    return True


def _upgraded(upgrade: TicketUpgrade) -> mail.Letter:
    return mail.Letter("ticket_upgraded", [qr.attachment(upgrade.code, name="ticket.png")])


def letter(fulfillment: Fulfillment, *, now: datetime) -> mail.Letter | None:
    """Nothing of an upgrade whose code a later one has replaced."""
    upgrade = _handed_out(fulfillment)
    return _upgraded(upgrade) if upgrade and not upgrade.superseded_by() else None


def _tier_of(purchase: Purchase) -> TicketTier:
    offer = Offer.objects.select_related("ticket_tier").get(pk=purchase.offer_id)
    tier = offer.ticket_tier
    if tier is None:
        raise CannotDeliver(f"Say on the page of the offer {offer} which ticket tier it gives.")
    if tier.event_id != purchase.event_id:
        raise CannotDeliver(
            f"The ticket tier of the offer {offer} was moved to another event: choose another one."
        )
    return tier


def _lock_registration(purchase: Purchase) -> Registration:
    registration = (
        Registration.objects.select_for_update(no_key=True)
        .filter(event=purchase.event_id, user=purchase.user_id)
        .first()
    )
    if registration is None:
        raise CannotDeliver(
            f"The buyer isn't registered at {purchase.event}: add their registration, or refund "
            "the purchase."
        )
    return registration


def _move(registration: Registration, tier_id: int) -> None:
    registration.ticket_tier_id = tier_id
    registration.save(update_fields=["ticket_tier"])


def missing(offer: Offer, *, now: datetime) -> str | None:
    return (
        None if offer.ticket_tier_id else "no ticket tier is chosen, so nobody is moved anywhere."
    )


def revoke(fulfillment: Fulfillment, *, now: datetime) -> str:
    """Take the upgrade out of its registration's chain; returns what staff should know, or "".

    The last one's registration goes back to the tier before it; of one in the middle the next one
    remembers that tier. Where staff have moved the registration since, their word stands.
    """
    registration = (
        Registration.objects.select_for_update(of=("self",), no_key=True)
        .filter(upgrades__fulfillment=fulfillment)
        .first()
    )
    if registration is None:
        return ""  # it wasn't delivered, or staff did it themselves
    # Read only now: the refund of an earlier one may have changed where this one leads back to.
    upgrade = TicketUpgrade.objects.select_related("to_tier", "fulfillment").get(
        fulfillment=fulfillment
    )
    upgrade.revoked_at = now
    upgrade.save(update_fields=["revoked_at"])
    following = upgrade.paid_later().filter(revoked_at=None).first()
    if following is not None:
        # A different tier is one that staff chose in between.
        if following.from_tier_id == upgrade.to_tier_id:
            following.from_tier_id = upgrade.from_tier_id
            following.save(update_fields=["from_tier"])
        return ""
    if registration.ticket_tier_id == upgrade.to_tier_id:
        _move(registration, upgrade.from_tier_id)
        return ""
    return _left_as_it_is(fulfillment, registration, upgrade)


def _left_as_it_is(
    fulfillment: Fulfillment, registration: Registration, upgrade: TicketUpgrade
) -> str:
    remark = (
        f"The ticket stays {registration.ticket_tier.title}: staff had moved it from "
        f"{upgrade.to_tier.title}."
    )
    transaction.on_commit(
        lambda: alert("ticket_moved_by_hand", fulfillment.purchase, detail=remark)
    )
    return remark


def describe(fulfillment: Fulfillment, *, absolute: Callable[[str], str]) -> dict[str, Any]:
    upgrade = _handed_out(fulfillment)
    if upgrade is None:
        return dict.fromkeys(
            ("ticket_tier", "previous_ticket_tier", "ticket_code", "ticket_code_url")
        )
    picture = reverse("purchase-code-svg", args=[fulfillment.purchase_id])
    return {
        "ticket_tier": upgrade.to_tier.slug,
        "previous_ticket_tier": upgrade.from_tier.slug,
        "ticket_code": upgrade.code,
        "ticket_code_url": absolute(picture),
    }


def _handed_out(fulfillment: Fulfillment) -> TicketUpgrade | None:
    # There is none where staff marked it as done.
    return getattr(fulfillment, "ticket_upgrade", None) if fulfillment.is_handed_out else None


def page(fulfillment: Fulfillment, *, now: datetime) -> dict[str, Any]:
    upgrade = _handed_out(fulfillment)
    return {"upgrade": upgrade, "superseded_by": upgrade and upgrade.superseded_by()}
