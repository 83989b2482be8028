"""What must be true of what was delivered, once the sweeps have done their work."""

from collections import Counter
from collections.abc import Iterable, Iterator

from fulfillment.models import Fulfillment
from fulfillment.states import Status, Type
from fulfillment.tickets.models import TicketUpgrade
from purchases.models import Email, Purchase
from purchases.states import Status as PurchaseStatus

HANDED_OUT = (Status.FULFILLED, Status.PROCESSING)


def broken(letters: Iterable[tuple[str, str]]) -> Iterator[str]:
    """``letters`` are the e-mails that went out, as (address, Message-ID)."""
    for purchase in Purchase.objects.all():
        yield from _of(purchase)
    for row in Email.objects.exclude(state=Email.State.SENT):
        if row.purchase.user.email:
            yield f"e-mail {row.occasion} is still {row.state}: {row.error}"
    yield from _letters_that_do_not_fit(letters)


def _of(purchase: Purchase) -> Iterator[str]:
    was_paid = purchase.transitions.filter(to_status=PurchaseStatus.PAID).exists()
    fulfillment = Fulfillment.objects.filter(purchase=purchase).first()
    if purchase.fulfillment_due:
        yield f"fulfilment never heard that a purchase is {purchase.status}"
    if was_paid != (fulfillment is not None):
        yield f"a {purchase.status} purchase, and its fulfilment is {fulfillment}"
    if fulfillment is None:
        return
    if fulfillment.due_at is not None:
        yield f"still in the queue: {fulfillment}, {fulfillment.error}"
    expected = {
        PurchaseStatus.PAID: HANDED_OUT,
        PurchaseStatus.REFUNDED: (Status.REVOKED,),
    }
    if fulfillment.status not in expected.get(PurchaseStatus(purchase.status), Status.values):
        yield f"a {purchase.status} purchase is {fulfillment.status}"
    if fulfillment.transitions.filter(to_status=Status.FULFILLED).count() > 1:
        yield "fulfilled more than once"
    yield from _units(fulfillment, purchase)


def _units(fulfillment: Fulfillment, purchase: Purchase) -> Iterator[str]:
    if fulfillment.type == Type.DIGITAL:
        given = fulfillment.access_codes.count()
        if given != purchase.quantity:
            yield f"{given} codes for {purchase.quantity} units"
    if fulfillment.type == Type.TICKET:
        upgrade = TicketUpgrade.objects.select_related("registration").get(fulfillment=fulfillment)
        revoked = fulfillment.status == Status.REVOKED
        tier = upgrade.from_tier_id if revoked else upgrade.to_tier_id
        if upgrade.registration.ticket_tier_id != tier:
            yield f"the registration of a {fulfillment.status} upgrade is at another tier"


def _letters_that_do_not_fit(letters: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Each occasion's message went out, and whatever went out twice is the same message."""
    different = Counter(address for address, _ in set(letters))
    sent = Counter(row.purchase.user.email for row in Email.objects.filter(state=Email.State.SENT))
    if different != sent:
        yield f"e-mails sent: {dict(different)}, on record: {dict(sent)}"
