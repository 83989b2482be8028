"""What is left, for pages that are open: to whom it is said, how, and what it costs."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone, translation

from offers.models import Offer
from offers.offer_card import FEW, left_in_words
from tests.conftest import Sandbox, buy
from tests.factories import (
    EventFactory,
    MembershipFactory,
    OfferFactory,
    RegistrationFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db


def live(client: Client, event: Any, **query: str) -> Any:
    return client.get(f"/events/{event.slug}/offers/live", query)


def stock(client: Client, offer: Offer, **query: str) -> Any:
    """What is said of the offer, or ``None`` if it isn't there."""
    return live(client, offer.event, **query).json()["offers"].get(str(offer.pk))


def visitor(user: User) -> Client:
    client = Client()
    client.force_login(user, backend="offers_project.login.ByMembership")
    return client


@pytest.mark.parametrize(
    ("total", "expected"),
    [
        (None, {"left": None, "said": "", "sold_out": False}),
        (FEW + 1, {"left": None, "said": "", "sold_out": False}),
        (FEW, {"left": 10, "said": "only 10 left", "sold_out": False}),
        (1, {"left": 1, "said": "only 1 left", "sold_out": False}),
        (0, {"left": 0, "said": "sold out", "sold_out": True}),
    ],
)
def test_number_is_said_once_few_are_left(
    client: Client, total: int | None, expected: dict[str, Any]
) -> None:
    assert stock(client, OfferFactory(inventory_total=total)) == expected


def test_page_of_somebody_who_was_logged_out_is_told_so(client: Client) -> None:
    """Instead of that what is for them alone has ended."""
    offer = OfferFactory()
    assert live(client, offer.event, mine="1").status_code == 403
    assert live(visitor(UserFactory()), offer.event, mine="1").status_code == 200


@pytest.mark.django_db(transaction=True)
def test_hold_and_its_end_are_seen_at_once(
    sandbox: Sandbox, client: Client, client_of: Any
) -> None:
    offer = OfferFactory(inventory_total=2)
    buyer = client_of(UserFactory())
    held = buy(buyer, offer, 2).json()
    assert stock(client, offer)["sold_out"]
    buyer.post(f"/api/v1/purchases/{held['id']}/cancel/")
    assert stock(client, offer) == {"left": 2, "said": "only 2 left", "sold_out": False}


@pytest.mark.parametrize(
    "change",
    [
        {"is_active": False},
        {"is_archived": True},
        {"expires_at": timezone.now() - timedelta(seconds=1)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_offer_that_is_not_on_sale_is_not_there(client: Client, change: dict[str, Any]) -> None:
    assert stock(client, OfferFactory(**change)) is None


def test_offer_whose_sale_is_to_come_is_not_over(client: Client) -> None:
    """Its card is on the page already, and says from when on."""
    offer = OfferFactory(starts_at=timezone.now() + timedelta(days=1), inventory_total=50)
    assert stock(client, offer) == {"left": None, "said": "", "sold_out": False}


def test_visitors_hear_of_what_their_page_shows(client: Client) -> None:
    registration = RegistrationFactory()
    everybodys = OfferFactory(event=registration.event)
    theirs = OfferFactory(event=registration.event)
    theirs.target_ticket_tiers.add(registration.ticket_tier)
    elsewhere = OfferFactory()
    for who, expected in (
        (client, {everybodys.pk}),
        (visitor(UserFactory()), {everybodys.pk}),
        (visitor(registration.user), {everybodys.pk, theirs.pk}),
    ):
        heard = live(who, registration.event).json()["offers"]
        assert set(heard) == {str(pk) for pk in expected}
        assert str(elsewhere.pk) not in heard


def test_private_event_is_not_to_be_found(client: Client) -> None:
    registration = RegistrationFactory(event__is_public=False)
    event = registration.event
    offer = OfferFactory(event=event, title="Secret")
    unknown = EventFactory.build(slug="unknown")
    for who in (client, visitor(UserFactory()), visitor(MembershipFactory().user)):
        answers = [live(who, asked) for asked in (event, unknown)]
        assert [answer.status_code for answer in answers] == [404, 404]
        assert "Secret" not in answers[0].content.decode()
    assert stock(visitor(registration.user), offer) is not None


def test_language_is_that_of_the_page(client: Client) -> None:
    offer = OfferFactory(inventory_total=0)
    for asked in ("en", "de"):
        answer = live(client, offer.event, lang=asked)
        assert answer.headers["Content-Language"] == asked
        with translation.override(asked):
            assert answer.json()["offers"][str(offer.pk)]["said"] == left_in_words(0)
    client.cookies["django_language"] = "de"
    assert live(client, offer.event, lang="en").headers["Content-Language"] == "en"
    for odd in ("", "xx", "../en", "de\x7f"):
        assert live(client, offer.event, lang=odd).headers["Content-Language"] == "de"


def test_look_costs_two_queries_whatever_there_is_to_see(client: Client) -> None:
    event = EventFactory()
    OfferFactory.create_batch(30, event=event)
    with CaptureQueriesContext(connection) as queries:
        assert len(live(client, event).json()["offers"]) == 30
    assert len(queries) == 2
    member = visitor(RegistrationFactory(event=event).user)
    with CaptureQueriesContext(connection) as queries:
        live(member, event)
    # And the session, the user, their registration with its sessions.
    assert len(queries) == 5


def test_live_stock_is_only_read(client: Client) -> None:
    event = EventFactory()
    for method in ("post", "put", "patch", "delete"):
        assert getattr(client, method)(f"/events/{event.slug}/offers/live").status_code == 405
