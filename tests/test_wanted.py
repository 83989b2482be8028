"""What one prepared query says of an offer and its buyer is what ``offers.targeting`` says."""

import itertools
import uuid
from typing import Any

import pytest
from django.contrib.auth.models import User

from offers import targeting, wanted
from offers.errors import DomainError, OfferNotFound
from offers.models import Offer
from tests.factories import (
    EventFactory,
    EventSessionFactory,
    MembershipFactory,
    OfferFactory,
    RegistrationFactory,
    TicketTierFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db


def answer_of(ask: Any) -> type[DomainError] | None:
    try:
        ask()
    except DomainError as refusal:
        return type(refusal)
    return None


def in_several_queries(user: User, offer: Offer) -> None:
    targeting.refuse_unless_eligible(user, targeting.visible_offer(user, offer.pk))


def in_one(user: User, offer: Offer) -> None:
    wanted.find(user, offer.pk).refuse_unless_eligible()


@pytest.mark.parametrize("is_public", [True, False], ids=["public", "private"])
def test_every_buyer_is_told_of_every_offer_what_targeting_says(is_public: bool) -> None:
    event = EventFactory(is_public=is_public)
    tier, other_tier = TicketTierFactory.create_batch(2, event=event)
    session, other_session = EventSessionFactory.create_batch(2, event=event)
    in_all = RegistrationFactory(event=event, ticket_tier=tier).user
    in_one_session = RegistrationFactory(event=event, ticket_tier=other_tier)
    in_one_session.sessions.add(session)
    buyers = [
        UserFactory(),
        in_all,
        in_one_session.user,
        RegistrationFactory().user,
        MembershipFactory(organization=event.organization).user,
        MembershipFactory().user,
        UserFactory(is_superuser=True),
    ]
    offers = []
    for tiers, sessions in itertools.product(
        [[], [tier], [other_tier], [tier, other_tier]],
        [[], [session], [other_session], [session, other_session]],
    ):
        offer = OfferFactory(event=event)
        offer.target_ticket_tiers.set(tiers)
        offer.target_sessions.set(sessions)
        offers.append(offer)
    told = {
        (buyer, offer): (
            answer_of(lambda b=buyer, o=offer: in_several_queries(b, o)),
            answer_of(lambda b=buyer, o=offer: in_one(b, o)),
        )
        for buyer in buyers
        for offer in offers
    }
    assert {pair: (old, new) for pair, (old, new) in told.items() if old != new} == {}
    assert {answer for answers in told.values() for answer in answers} > {None}


def test_offer_comes_with_its_event_and_all_of_its_fields() -> None:
    offer = OfferFactory(shipping_countries=["DE", "AT"])
    found = wanted.find(UserFactory(), offer.pk).offer
    stored = Offer.objects.select_related("event").get(pk=offer.pk)
    assert found == stored
    assert found.event.__dict__.keys() == stored.event.__dict__.keys()
    for field in Offer._meta.concrete_fields:
        assert getattr(found, field.attname) == getattr(stored, field.attname), field.name


def test_unknown_offer_is_not_found() -> None:
    with pytest.raises(OfferNotFound):
        wanted.find(UserFactory(), uuid.uuid4())
