"""The API's list, made cheap: what it says is what the models, the rules and the serializer say."""

import random
import threading
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import AnonymousUser, User
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework.renderers import JSONRenderer
from rest_framework.test import APIClient

from offers import catalog, inventory, lifecycle, targeting
from offers.models import Event, EventSession, Offer, Registration
from offers.serializers import OfferSerializer
from offers_project.local.valkey import ValkeyProcess
from purchases.models import Purchase
from purchases.states import Status
from tests.conftest import Sandbox, at_once, buy, release_unasked
from tests.factories import (
    EventFactory,
    EventSessionFactory,
    MembershipFactory,
    OfferFactory,
    PurchaseFactory,
    RegistrationFactory,
    TicketTierFactory,
    UserFactory,
)
from tests.test_redis_outage import valkey  # noqa: F401 - a fixture

pytestmark = pytest.mark.django_db
committed = pytest.mark.django_db(transaction=True)

Clients = Callable[..., APIClient]
OFFERS = "/api/v1/offers/"
DAY = timedelta(days=1)


def truth(caller: Any, event: Event, *, session: str | None = None, placement: str = "") -> bytes:
    """The first page by the models, the rules and the serializer: all that ``listing`` avoids."""
    now = timezone.now()
    event = targeting.visible_event(caller, event.slug)
    offers = catalog.showable(targeting.offers_for(caller, event, session=session), now)
    if placement:
        offers = offers.filter(placement=placement)
    listed = OfferSerializer(
        offers.order_by("-created_at", "-id"), many=True, context={"now": now}
    ).data
    return JSONRenderer().render({"next": None, "previous": None, "results": listed})


def listed(client: APIClient, event: Event, **query: Any) -> Any:
    return client.get(OFFERS, {"event": event.slug, "page_size": 200, **query})


def titles(answer: Any) -> set[str]:
    assert answer.status_code == 200, answer.content
    return {offer["title"] for offer in answer.json()["results"]}


# -- The same bytes -------------------------------------------------------------------------------


def test_offers_of_every_kind_are_written_as_the_serializer_writes_them(client_of: Clients) -> None:
    event = EventFactory()
    tiers = TicketTierFactory.create_batch(3, event=event)
    sessions = EventSessionFactory.create_batch(3, event=event)
    registration = RegistrationFactory(event=event, ticket_tier=tiers[1])
    whole_second = timezone.now().replace(microsecond=0)
    for offer_type in Offer.Type.values:
        for placement in Offer.Placement.values:
            OfferFactory(event=event, offer_type=offer_type, placement=placement)
    for price, currency in (("50", "USD"), ("500", "JPY"), ("1.25", "KWD"), ("7", "ISK")):
        OfferFactory(event=event, price=Decimal(price), currency=currency)
    OfferFactory(event=event, price=Decimal("0.5"), original_price=Decimal("1234567.89"))
    OfferFactory(event=event, price=Decimal(0))
    OfferFactory(event=event, inventory_total=None, max_per_user=3)
    OfferFactory(event=event, starts_at=whole_second - DAY, expires_at=timezone.now() + DAY)
    OfferFactory(event=event, ticket_tier=tiers[2], offer_type="TICKET_UPGRADE")
    OfferFactory(event=event, shipping_countries=["DE", "AT"], allows_collection=False)
    OfferFactory(event=event, image_url="https://example.org/a?b=1&c=%C3%A4")
    for text in (
        'quotes " and \\ and / and <b>&amp;</b>',
        "lines\nof\r\ntext\twith tabs\b\f",
        "".join(map(chr, range(1, 32))) + "\x7f\x80\x9f",
        "line\u2028and paragraph\u2029separators, \ufeff and \ufffd",
        "Größe, 文字, עברית, 👩‍👩‍👧 and \U0010ffff",
    ):
        OfferFactory(event=event, title=text, description=text * 3)
    for targeted in (tiers[:2], tiers[1:2], list(reversed(tiers))):
        OfferFactory(event=event).target_ticket_tiers.add(*targeted)
    OfferFactory(event=event).target_sessions.add(*reversed(sessions))
    PurchaseFactory(offer=OfferFactory(event=event), quantity=2, status=Status.PAID)
    PurchaseFactory(offer=OfferFactory(event=event), quantity=3)

    for user in (None, registration.user):
        answer = listed(client_of(user), event)
        assert answer.content == truth(user or AnonymousUser(), event)
        assert answer.headers["Content-Type"] == "application/json"
    assert len(answer.json()["results"]) == 38
    one = client_of().get(f"{OFFERS}{answer.json()['results'][0]['id']}/").json()
    assert one == answer.json()["results"][0]


def test_list_is_what_the_rules_say_whatever_there_is_and_whoever_asks(client_of: Clients) -> None:
    """Offers and callers by chance, of all combinations of what the rules look at."""
    chance = random.Random(7)  # noqa: S311 - the same each time
    now = timezone.now()
    event = EventFactory()
    tiers = TicketTierFactory.create_batch(3, event=event)
    sessions = EventSessionFactory.create_batch(3, event=event)
    around = [None, now - DAY, now + DAY]

    def some(of: list[Any]) -> list[Any]:
        return chance.sample(of, chance.choice([0, 0, 1, 2]))

    for _ in range(100):
        starts_at, expires_at = chance.choice(around), chance.choice(around)
        if starts_at and expires_at and starts_at >= expires_at:
            starts_at = None
        total = chance.choice([None, 0, 1, 5, 5])
        offer = OfferFactory(
            event=event,
            starts_at=starts_at,
            expires_at=expires_at,
            inventory_total=total,
            placement=chance.choice(Offer.Placement.values),
            is_active=chance.random() > 0.1,
            is_archived=chance.random() < 0.1,
        )
        if total:
            PurchaseFactory(offer=offer, quantity=chance.randint(1, total))
        offer.target_ticket_tiers.add(*some(tiers))
        offer.target_sessions.add(*some(sessions))
    callers: list[Any] = [None, UserFactory(), UserFactory(is_superuser=True)]
    callers.append(MembershipFactory(organization=event.organization).user)
    for tier in tiers:
        for attended in ([], sessions[:1], sessions[1:]):
            registration = RegistrationFactory(event=event, ticket_tier=tier)
            registration.sessions.add(*attended)
            callers.append(registration.user)

    sizes = set()
    for caller in callers:
        for session in (None, sessions[0].slug):
            for placement in ("", "IN_EVENT"):
                query = {"session": session or "", "placement": placement}
                answer = listed(client_of(caller), event, **query)
                assert answer.content == truth(
                    caller or AnonymousUser(), event, session=session, placement=placement
                )
                sizes.add(len(answer.json()["results"]))
    assert len(sizes) > 10


def test_pages_follow_each_other_whoever_asks(client_of: Clients) -> None:
    event = EventFactory()
    OfferFactory.create_batch(25, event=event)
    # Many of one moment: a cursor then has an offset, too.
    Offer.objects.filter(title__endswith="3").update(created_at=timezone.now())
    everything = list(Offer.objects.order_by("-created_at", "-id").values_list("title", flat=True))
    for user in (None, RegistrationFactory(event=event).user):
        client = client_of(user)
        address, forth, pages = f"{OFFERS}?event={event.slug}&page_size=4", [], 0
        while address:
            answer = client.get(address).json()
            forth += [offer["title"] for offer in answer["results"]]
            address, pages = answer["next"], pages + 1
        assert forth == everything
        back = [offer["title"] for offer in reversed(answer["results"])]
        while answer["previous"]:
            answer = client.get(answer["previous"]).json()
            back += [offer["title"] for offer in reversed(answer["results"])]
        assert back == everything[::-1]
        assert pages == 7


# -- As of now ------------------------------------------------------------------------------------


class Shop:
    """An event with two tiers and a session, and everybody who may look at its list."""

    def __init__(self, client_of: Clients) -> None:
        self.event = EventFactory()
        self.standard, self.vip = TicketTierFactory.create_batch(2, event=self.event)
        self.talk, self.workshop = EventSessionFactory.create_batch(2, event=self.event)
        self.registration = RegistrationFactory(event=self.event, ticket_tier=self.standard)
        self.registration.sessions.add(self.talk)
        self.offer = OfferFactory(event=self.event, title="Hoodie", inventory_total=2)
        OfferFactory(event=self.event, title="VIP").target_ticket_tiers.add(self.vip)
        OfferFactory(event=self.event, title="Workshop").target_sessions.add(self.workshop)
        self.member = MembershipFactory(organization=self.event.organization).user
        self.callers = {
            "anybody": None,
            "attendee": self.registration.user,
            "member": self.member,
            "stranger": UserFactory(),
        }
        self.client_of = client_of

    def seen(self) -> dict[str, set[str] | int]:
        """What each is shown now, which is the truth: titles, or the status of a refusal."""
        found: dict[str, set[str] | int] = {}
        for name, user in self.callers.items():
            answer = listed(self.client_of(user), self.event)
            if answer.status_code == 200:
                self.event.refresh_from_db()
                assert answer.content == truth(user or AnonymousUser(), self.event)
            found[name] = titles(answer) if answer.status_code == 200 else answer.status_code
        return found


BEFORE: dict[str, set[str] | int] = {
    name: {"Hoodie"} for name in ("anybody", "attendee", "member", "stranger")
}
NOTHING: dict[str, set[str] | int] = {name: set() for name in BEFORE}
ATTENDEE_TOO: dict[str, set[str] | int] = {**BEFORE, "attendee": {"Hoodie", "VIP"}}


def sells_out(shop: Shop) -> None:
    PurchaseFactory(offer=shop.offer, quantity=2)


def edited_over_the_api(shop: Shop) -> None:
    answer = shop.client_of(shop.member).patch(f"{OFFERS}{shop.offer.pk}/", {"title": "Jumper"})
    assert answer.status_code == 200


def aimed_at_a_session(shop: Shop) -> None:
    answer = shop.client_of(shop.member).patch(
        f"{OFFERS}{shop.offer.pk}/", {"target_sessions": [shop.talk.slug]}
    )
    assert answer.status_code == 200


def other_event_of_the_name(shop: Shop) -> None:
    Event.objects.filter(pk=shop.event.pk).update(slug="renamed")
    new = EventFactory(slug=shop.event.slug, organization=shop.event.organization)
    OfferFactory(event=new, title="Of the new one")
    shop.event = new


CHANGES: dict[str, tuple[Callable[[Shop], Any], dict[str, set[str] | int]]] = {
    "sold out": (sells_out, NOTHING),
    "stock taken away": (
        lambda shop: inventory.set_total(offer_id=shop.offer.pk, total=0),
        NOTHING,
    ),
    "edited": (edited_over_the_api, {name: {"Jumper"} for name in BEFORE}),
    "aimed at a session": (aimed_at_a_session, {**NOTHING, "attendee": {"Hoodie"}}),
    "archived": (
        lambda shop: lifecycle.archive(shop.offer.pk, now=timezone.now(), source="API", actor=None),
        NOTHING,
    ),
    "deactivated in SQL": (lambda shop: Offer.objects.update(is_active=False), NOTHING),
    "a better ticket": (
        lambda shop: Registration.objects.update(ticket_tier=shop.vip),
        ATTENDEE_TOO,
    ),
    "one more session": (
        lambda shop: shop.registration.sessions.add(shop.workshop),
        {**BEFORE, "attendee": {"Hoodie", "Workshop"}},
    ),
    "registration for the whole event": (
        lambda shop: shop.registration.sessions.clear(),
        {**BEFORE, "attendee": {"Hoodie", "Workshop"}},
    ),
    "no registration any more": (lambda shop: shop.registration.delete(), BEFORE),
    "target dropped": (
        lambda shop: Offer.objects.get(title="VIP").target_ticket_tiers.clear(),
        {name: {"Hoodie", "VIP"} for name in BEFORE},
    ),
    "event made private": (
        lambda shop: Event.objects.update(is_public=False),
        {**BEFORE, "anybody": 404, "stranger": 404},
    ),
    "another event gets the name": (
        other_event_of_the_name,
        {name: {"Of the new one"} for name in BEFORE},
    ),
    "session renamed": (
        lambda shop: EventSession.objects.filter(pk=shop.workshop.pk).update(slug="new-slug"),
        BEFORE,
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_next_answer_after_a_change_knows_of_it(client_of: Clients, change: str) -> None:
    shop = Shop(client_of)
    assert shop.seen() == BEFORE
    make, after = CHANGES[change]
    make(shop)
    assert shop.seen() == after


def test_window_opens_and_closes_on_time(client_of: Clients) -> None:
    with time_machine.travel("2030-06-01T12:00:00Z", tick=False) as clock:
        shop = Shop(client_of)
        now = timezone.now()
        Offer.objects.filter(pk=shop.offer.pk).update(
            starts_at=now + timedelta(seconds=1), expires_at=now + timedelta(seconds=2)
        )
        for expected in (NOTHING, BEFORE, NOTHING):
            # A token that is good at this time.
            assert shop.seen() == expected
            clock.shift(1)


@committed
def test_purchase_takes_the_last_unit_off_the_list_and_its_release_puts_it_back(
    sandbox: Sandbox, client_of: Clients
) -> None:
    shop = Shop(client_of)
    assert shop.seen() == BEFORE
    purchase = buy(client_of(shop.registration.user), shop.offer, 2).json()
    assert shop.seen() == NOTHING
    release_unasked(purchase["id"])
    assert shop.seen() == BEFORE
    assert Purchase.objects.get().status == Status.RELEASED


@committed
def test_list_is_the_same_without_redis(client_of: Clients, valkey: ValkeyProcess) -> None:  # noqa: F811 - the fixture
    shop = Shop(client_of)
    with_redis = [listed(client_of(user), shop.event).content for user in shop.callers.values()]
    valkey.kill()
    without = [listed(client_of(user), shop.event).content for user in shop.callers.values()]
    assert without == with_redis
    assert shop.seen() == BEFORE


# -- At the same time -----------------------------------------------------------------------------


@committed
def test_crowd_is_never_told_of_stock_that_was_gone_when_it_asked(client_of: Clients) -> None:
    """Readers of all kinds beside a seller: no count is above what was left before they asked."""
    shop = Shop(client_of)
    Offer.objects.filter(pk=shop.offer.pk).update(inventory_total=60)
    sold, wrong, is_over = [0], [], threading.Event()

    def sell() -> None:
        try:
            for number in range(1, 61):
                with transaction.atomic():
                    inventory.reserve(offer_id=shop.offer.pk, quantity=1)
                sold[0] = number
        finally:
            is_over.set()

    def look(user: User | None) -> None:
        client = client_of(user)
        while not is_over.is_set():
            at_least = sold[0]
            results = listed(client, shop.event).json()["results"]
            offers = {offer["title"]: offer["inventory"] for offer in results}
            # Sold out, it isn't listed.
            told = offers["Hoodie"]["reserved"] if "Hoodie" in offers else 60
            if told < at_least:
                wrong.append((told, at_least))

    looking = [lambda user=user: look(user) for user in list(shop.callers.values())[:2] * 4]
    answers = at_once([sell, *looking])
    assert answers == [None] * 9
    assert wrong == []
    assert titles(listed(client_of(), shop.event)) == set()


def test_attendee_takes_three_queries_and_anybody_two(client_of: Clients) -> None:
    event = EventFactory()
    OfferFactory.create_batch(60, event=event)
    for user, expected in ((None, 2), (RegistrationFactory(event=event).user, 3)):
        with CaptureQueriesContext(connection) as queries:
            assert len(listed(client_of(user), event).json()["results"]) == 60
        assert len(queries) == expected
