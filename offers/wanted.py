"""The offer that somebody wants to buy, with what is known of the buyer: one prepared query.

What ``offers.targeting`` says in several queries, for the caller that asks thousands of times a
minute; tests/test_wanted.py holds the two against each other.
"""

import uuid
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import User
from django.db.models import BooleanField, Exists, IntegerField, OuterRef, Q, QuerySet, UUIDField

from offers.errors import NotEligible, NotRegistered, OfferNotFound
from offers.models import Membership, Offer, Registration
from offers.prepared import Given, Query


@dataclass(frozen=True)
class Wanted:
    """An offer that its buyer may see; a snapshot, since nothing is locked."""

    offer: Offer
    is_registered: bool
    is_for_buyer: bool

    def refuse_unless_eligible(self) -> None:
        """Raise ``NotRegistered`` or ``NotEligible`` unless its buyer may buy it."""
        if not (self.offer.event.is_public or self.is_registered):
            raise NotRegistered
        if not self.is_for_buyer:
            raise NotEligible


def find(user: User, offer_id: uuid.UUID) -> Wanted:
    """Return the offer with its event; called by checkout before it holds anything.

    Raises ``OfferNotFound`` for one of an event that ``user`` may not know of.
    """
    offer: Any = _VISIBLE.first(offer=offer_id, user=user.pk, sees_all=user.is_superuser)
    if offer is None:
        raise OfferNotFound
    return Wanted(offer, offer.is_registered, offer.is_for_buyer)


def _visible() -> QuerySet[Offer]:
    user = Given("user", IntegerField())
    place = Registration.objects.filter(event=OuterRef("event"), user=user)
    staff = Membership.objects.filter(organization=OuterRef("event__organization"), user=user)
    of_tier = Offer.target_ticket_tiers.through.objects.filter(offer=OuterRef("pk"))
    of_session = Offer.target_sessions.through.objects.filter(offer=OuterRef("pk"))
    # Who is registered without sessions attends them all.
    attends = Exists(place.filter(sessions__isnull=True)) | Exists(
        place.filter(sessions__offers=OuterRef("pk"))
    )
    return (
        Offer.objects.filter(pk=Given("offer", UUIDField()))
        .filter(
            Q(event__is_public=True)
            | Exists(place)
            | Exists(staff)
            | Q(Given("sees_all", BooleanField()))
        )
        .annotate(
            is_registered=Exists(place),
            is_for_buyer=Q(
                ~Exists(of_tier) | Exists(place.filter(ticket_tier__offers=OuterRef("pk"))),
                ~Exists(of_session) | attends,
            ),
        )
        .select_related("event")
    )


_VISIBLE = Query(_visible)
