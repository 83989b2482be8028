"""Whose code is it? For staff at the door, and for buyers who want to show theirs."""

import uuid
from dataclasses import dataclass
from types import ModuleType

from django.contrib.auth.models import User

from fulfillment.codes import text
from fulfillment.codes.errors import CodeNotFound, NoCodeToShow
from fulfillment.models import Fulfillment
from fulfillment.shipping import checking as shipping
from fulfillment.states import Type
from fulfillment.tickets import checking as tickets
from offers import targeting
from offers.models import Membership

# The types of fulfilment that have codes, and for each a module with
#   find(code) -> Fulfillment | None   whose it is, with its purchase and its event
#   code_of(fulfillment) -> str | None the code that its buyer may show now
#   show(fulfillment) -> dict          what the check-in page shows of it, by
#   TEMPLATE                           which is included in that page
# and, if ``show`` ever says ``may_hand_over``, for which the page has a button,
#   hand_over(fulfillment_id, *, actor, now)   which locks for itself, and raises DomainErrors
# A code's letters are random, so no two kinds have the same.
KINDS: dict[str, ModuleType] = {Type.TICKET: tickets, Type.PHYSICAL: shipping}


@dataclass(frozen=True)
class Found:
    """A code's fulfilment, and the module that knows what it is good for."""

    fulfillment: Fulfillment
    kind: ModuleType


def may_check(caller: User) -> bool:
    """Whether the caller works for any organization at all."""
    return caller.is_superuser or Membership.objects.filter(user=caller).exists()


def find(typed: str, *, caller: User) -> Found:
    """Whose code this is.

    Called by the check-in page. Raises ``CodeNotFound``, also for codes of organizations that the
    caller is no member of.
    """
    code = text.read(typed)
    for kind in KINDS.values() if code else ():
        fulfillment = kind.find(code)
        if fulfillment and targeting.is_member(caller, fulfillment.purchase.event):
            return Found(fulfillment, kind)
    raise CodeNotFound


def may_hand_over(caller: User, found: Found) -> bool:
    """Whether the caller may press the button; support may look, here as everywhere."""
    return targeting.is_editor(caller, found.fulfillment.purchase.event)


def code_for(caller: User, purchase_id: uuid.UUID) -> str:
    """The code that the caller may show for a purchase of theirs; raises ``NoCodeToShow``."""
    fulfillment = (
        Fulfillment.objects.filter(purchase=purchase_id, purchase__user=caller)
        .select_related("purchase")
        .first()
    )
    if fulfillment is not None and fulfillment.type in KINDS:
        code: str | None = KINDS[fulfillment.type].code_of(fulfillment)
        if code is not None:
            return code
    raise NoCodeToShow
