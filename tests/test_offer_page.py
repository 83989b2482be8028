"""What is on sale, as attendees see it: an event's cards, an offer's own page, the Buy button."""

import html
import re
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.core.cache import caches
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from waffle.models import Switch

from offers import impressions
from offers.models import Event, Offer
from purchases import tasks
from purchases.models import Purchase
from purchases.states import Status
from tests.conftest import counters
from tests.factories import (
    EventFactory,
    OfferFactory,
    PurchaseFactory,
    RegistrationFactory,
    TicketTierFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db(transaction=True)

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


@pytest.fixture
def browser() -> Client:
    client = Client()
    client.user = UserFactory()
    client.force_login(client.user)
    return client


def page_of(offer: Offer) -> str:
    return f"/events/{offer.event.slug}/offers/{offer.pk}"


def text_of(client: Client, url: str, status: int = 200) -> str:
    answer = client.get(url)
    assert answer.status_code == status
    return html.unescape(" ".join(re.sub(r"<[^>]+>", " ", answer.content.decode()).split()))


def cards(client: Client, event: Event, query: str = "") -> list[tuple[str, str]]:
    """Each card's title and markup, in the order of the page."""
    page = client.get(f"/events/{event.slug}/offers{query}").content.decode()
    found = re.findall(r"<article data-offer.*?</article>", page, re.DOTALL)
    return [(re.search(r"<h3>(?:<a[^>]*>)?([^<]+)", card)[1], card) for card in found]


def form(client: Client, page: str, **chosen: Any) -> dict[str, Any]:
    shown = client.get(page).content.decode()
    return {"key": re.search(r'name="key" value="([^"]+)"', shown)[1], "quantity": 1, **chosen}


# -- The cards of an event ------------------------------------------------------------------------


def test_sold_out_offers_stay_on_the_page_after_those_that_can_be_bought(browser: Client) -> None:
    event = EventFactory()
    now = timezone.now()
    OfferFactory(event=event, title="Gone", inventory_total=0)
    OfferFactory(event=event, title="Soon", starts_at=now + DAY)
    OfferFactory(event=event, title="Here")
    OfferFactory(event=event, title="Over", expires_at=now - HOUR)
    OfferFactory(event=event, title="Draft", is_active=False)
    OfferFactory(event=event, title="Withdrawn", is_archived=True)
    shown = cards(browser, event)
    assert [title for title, _ in shown] == ["Here", "Soon", "Gone"]
    (_, here), (_, soon), (_, gone) = shown
    assert "<form" in here
    assert "<form" not in soon + gone
    assert "On sale from:" in soon
    assert "<p data-sold-out hidden>" in here
    assert "<p data-sold-out>" in gone
    assert "basket" not in gone


def test_what_is_all_on_hold_may_come_back(browser: Client) -> None:
    offer = OfferFactory(inventory_total=2)
    PurchaseFactory(offer=offer, quantity=2)
    [(_, card)] = cards(browser, offer.event)
    assert "they may come back within 15 minutes" in card


def test_card_says_what_is_left_when_few_are_and_when_the_sale_ends(browser: Client) -> None:
    event, now = EventFactory(), timezone.now()
    OfferFactory(event=event, title="A", inventory_total=10, expires_at=now + 47 * HOUR)
    OfferFactory(event=event, title="B", inventory_total=11, expires_at=now + 49 * HOUR)
    OfferFactory(event=event, title="C", inventory_total=None)
    (_, few), (_, enough), (_, unlimited) = cards(browser, event)
    assert '<span class="left" data-left>only 10 left</span>' in few
    assert "data-until" in few
    for card in (enough, unlimited):
        assert '<span class="left" data-left></span>' in card
        assert "data-until" not in card
    assert "On sale until:" in enough


def test_struck_price_says_which_is_which_to_who_hears_it(browser: Client) -> None:
    offer = OfferFactory(price=39, original_price=49)
    said = text_of(browser, page_of(offer))
    assert "Price now: $39.00 Price before: $49.00" in said
    assert "Price now" not in text_of(browser, page_of(OfferFactory()))


@pytest.mark.parametrize(
    ("offer", "has", "most"),
    [
        ({"inventory_total": 7}, 0, 7),
        ({"inventory_total": None}, 0, 20),
        ({"max_per_user": 5}, 0, 5),
        ({"max_per_user": 5}, 2, 3),
    ],
)
def test_quantity_is_limited_to_what_can_be_bought(
    browser: Client, offer: dict[str, Any], has: int, most: int
) -> None:
    sold = OfferFactory(**offer)
    if has:
        PurchaseFactory(offer=sold, user=browser.user, quantity=has, status=Status.PAID)
    [(_, card)] = cards(browser, sold.event)
    assert f'min="1" max="{most}"' in card


def test_who_has_as_many_as_one_may_have_is_told_so(browser: Client) -> None:
    offer = OfferFactory(max_per_user=1)
    PurchaseFactory(offer=offer, user=browser.user, status=Status.PAID)
    [(_, card)] = cards(browser, offer.event)
    assert "<form" not in card
    assert "one attendee may buy 1 of these" in card


def test_own_ticket_is_not_sold_again(browser: Client) -> None:
    event = EventFactory()
    vip = TicketTierFactory(event=event)
    RegistrationFactory(event=event, user=browser.user, ticket_tier=vip)
    OfferFactory(event=event, offer_type="TICKET_UPGRADE", ticket_tier=vip)
    [(_, card)] = cards(browser, event)
    assert "This is your ticket already." in card
    assert "<form" not in card


def test_offers_with_the_ticket_have_a_heading_and_a_link_of_their_own(browser: Client) -> None:
    event = EventFactory()
    for placement in Offer.Placement.values:
        OfferFactory(event=event, title=placement, placement=placement)
    assert [title for title, _ in cards(browser, event)] == ["IN_EVENT", "CHECKOUT"]
    assert "With your ticket" in text_of(browser, f"/events/{event.slug}/offers")
    for placement in ("CHECKOUT", "IN_EVENT"):
        assert [t for t, _ in cards(browser, event, f"?placement={placement}")] == [placement]
    assert len(cards(browser, event, "?placement=x")) == 2


def test_page_costs_the_same_queries_whatever_there_is_on_it(browser: Client) -> None:
    counts = []
    for number in (5, 50):
        event = EventFactory()
        for n in range(number):
            placement = Offer.Placement.CHECKOUT if n % 2 else Offer.Placement.IN_EVENT
            PurchaseFactory(
                offer=OfferFactory(event=event, inventory_total=n % 3 + 1, placement=placement),
                user=browser.user if n < 3 else UserFactory(),
            )
        caches["switches"].clear()  # remembered for two seconds, which it may take to get here
        browser.get(f"/events/{event.slug}/offers")
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert len(cards(browser, event)) == number
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 7


def test_thousands_of_offers_are_several_pages(browser: Client, monkeypatch: Any) -> None:
    monkeypatch.setattr("purchases.pages.OFFERS_ON_A_PAGE", 2)
    event = EventFactory()
    for title in "ABC":
        OfferFactory(event=event, title=title)
    assert [title for title, _ in cards(browser, event)] == ["A", "B"]
    assert 'href="?page=2"' in browser.get(f"/events/{event.slug}/offers").content.decode()
    assert [title for title, _ in cards(browser, event, "?page=2")] == ["C"]
    for nonsense in ("0", "-1", "x", "²", "9" * 30):
        assert len(cards(browser, event, f"?page={nonsense}")) == 2


def test_only_what_can_be_bought_counts_as_shown(browser: Client) -> None:
    event = EventFactory()
    here = OfferFactory(event=event)
    gone = OfferFactory(event=event, inventory_total=0)
    cards(browser, event)
    for offer in (here, gone):
        browser.get(page_of(offer))
    assert impressions.flush() == 2
    assert {row.offer_id for row in impressions.Impression.objects.all()} == {here.pk}


def test_open_hold_is_said_on_the_events_pages_with_the_way_to_pay(browser: Client) -> None:
    offer = OfferFactory(title="Hoodie")
    hold = PurchaseFactory(offer=offer, user=browser.user, status=Status.AWAITING_PAYMENT)
    Purchase.objects.filter(pk=hold.pk).update(checkout_url="https://stripe.example/pay")
    for url in (f"/events/{offer.event.slug}/offers", page_of(offer)):
        page = browser.get(url).content.decode()
        assert "Reserved for you: 1 × Hoodie." in page
        assert f'data-until="{hold.reserved_until.isoformat()}"' in page
        assert 'href="https://stripe.example/pay"' in page
    Purchase.objects.filter(pk=hold.pk).update(reserved_until=timezone.now() - HOUR)
    assert "Reserved for you" not in text_of(browser, page_of(offer))


def test_buy_again_means_the_unpaid_hold_of_the_same(sandbox: Any, browser: Client) -> None:
    offer = OfferFactory(shipping_countries=["DE"], allows_collection=True)

    def buy(**chosen: Any) -> str:
        """From the page as it is now, and so with another key each time."""
        return browser.post(page_of(offer), form(browser, page_of(offer), **chosen)).url

    first = buy(delivery_method="shipping")
    assert buy(delivery_method="shipping") == first
    assert buy() == first
    assert counters(offer) == (1, 0)
    others = {buy(delivery_method="collection"), buy(quantity=2, delivery_method="shipping")}
    assert len(others | {first}) == 3
    assert counters(offer) == (4, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"reserved_until": timezone.now() - timedelta(seconds=1)},
        {"ending_until": timezone.now() + timedelta(minutes=1)},
        {"unit_price": 49, "total_price": 49},
    ],
    ids=["overdue", "being cancelled", "at another price"],
)
def test_buy_again_is_another_purchase_if_the_hold_is_not_as_good(
    sandbox: Any, browser: Client, change: dict[str, Any]
) -> None:
    offer = OfferFactory()
    first = browser.post(page_of(offer), form(browser, page_of(offer)))
    Purchase.objects.update(**change)
    assert browser.post(page_of(offer), form(browser, page_of(offer))).url != first.url
    assert Purchase.objects.count() == 2


def test_who_missed_the_time_to_pay_is_told_so_and_can_try_again(
    sandbox: Any, browser: Client
) -> None:
    offer = OfferFactory(title="Hoodie")
    said = "Your time to pay for 1 × Hoodie ran out. Nothing was charged."
    pages = (f"/events/{offer.event.slug}/offers", page_of(offer))
    for _ in range(2):
        browser.post(page_of(offer), form(browser, page_of(offer)))
        missed = Purchase.objects.latest("created_at")
        assert said not in text_of(browser, page_of(offer))
        Purchase.objects.filter(pk=missed.pk).update(reserved_until=timezone.now() - HOUR / 60)
        tasks.end_overdue_holds()
    for url in pages:
        assert text_of(browser, url).count(said) == 1  # of two that were missed, the last
    browser.post(f"/purchases/{missed.pk}/again")
    assert said not in text_of(browser, page_of(offer))
    assert "Reserved for you" in text_of(browser, page_of(offer))


def test_what_was_missed_is_not_offered_again_once_it_is_long_ago_or_sold_out(
    browser: Client,
) -> None:
    offer = OfferFactory(inventory_total=1)
    missed = PurchaseFactory(offer=offer, user=browser.user, status=Status.RELEASED)
    now = timezone.now()
    for ago, is_told in ((HOUR / 2, True), (2 * HOUR, False)):
        Purchase.objects.filter(pk=missed.pk).update(reserved_until=now - ago)
        assert ("Try again" in text_of(browser, page_of(offer))) is is_told
    Purchase.objects.filter(pk=missed.pk).update(reserved_until=now)
    PurchaseFactory(offer=offer)
    assert "Try again" not in text_of(browser, page_of(offer))


def test_past_events_come_last_on_the_front_page(client: Client) -> None:
    now = timezone.now()
    EventFactory(title="Last year", starts_at=now - 300 * DAY, ends_at=now - 299 * DAY)
    EventFactory(title="Next year", starts_at=now + 300 * DAY)
    page = text_of(client, "/")
    assert page.index("Next year") < page.index("Past events") < page.index("Last year")


# -- One offer, from anywhere ---------------------------------------------------------------------


@pytest.mark.parametrize("placement", Offer.Placement)
def test_offer_has_a_page_whatever_its_placement(
    sandbox: Any, browser: Client, placement: str
) -> None:
    offer = OfferFactory(placement=placement, title="Hoodie")
    sent = browser.post(page_of(offer), form(browser, page_of(offer)))
    assert sent.url == Purchase.objects.get().checkout_url
    assert counters(offer) == (1, 0)


def test_address_of_before_the_event_was_renamed_still_leads_there(client: Client) -> None:
    offer = OfferFactory()
    answer = client.get(f"/events/old-name/offers/{offer.pk}")
    assert answer.url == page_of(offer)


def test_stranger_cannot_tell_a_private_offer_from_one_that_is_not_there(browser: Client) -> None:
    private = page_of(OfferFactory(event=EventFactory(is_public=False)))
    unknown = f"/events/nothing/offers/{OfferFactory.build().pk}"
    for url in (private, unknown):
        assert Client().get(url).url == f"/login?next={url}"
        assert Client().post(url, {"quantity": 1}).url == f"/login?next={url}%3Fquantity%3D1"
        assert browser.get(url).status_code == 404
        back = browser.post(url, {"quantity": 1})
        assert browser.get(back.url).status_code == 404


def test_link_to_a_private_offer_leads_to_it_after_the_login() -> None:
    registration = RegistrationFactory(event=EventFactory(is_public=False))
    offer = OfferFactory(event=registration.event, title="Hoodie")
    visitor = Client()
    asked = visitor.get(page_of(offer))
    login = {"username": registration.user.username, "password": "secret"}
    assert visitor.post(asked.url, login).url == page_of(offer)
    assert "Hoodie" in text_of(visitor, page_of(offer))


def test_login_keeps_what_was_chosen() -> None:
    offer = OfferFactory(shipping_countries=["DE"])
    user, visitor = UserFactory(), Client()
    listed = f"/events/{offer.event.slug}/offers"
    chosen = {"offer": str(offer.pk), "quantity": 3, "delivery_method": "collection"}
    asked = visitor.post(listed, form(visitor, listed) | chosen)
    back = visitor.post(asked.url, {"username": user.username, "password": "secret"})
    assert urlsplit(back.url).path == page_of(offer)
    page = visitor.get(back.url).content.decode()
    assert 'name="quantity" value="3"' in page
    assert '<option value="collection" selected>' in page


@pytest.mark.parametrize(
    ("offer", "said"),
    [
        ({"inventory_total": 0}, "Sold out"),
        ({"expires_at": timezone.now() - HOUR}, "The sale of this offer has ended."),
        ({"starts_at": timezone.now() + DAY}, "On sale from:"),
        ({"is_archived": True}, "This offer was withdrawn."),
        ({"is_active": False}, "This offer is not on sale."),
    ],
)
def test_page_of_what_cannot_be_bought_says_why_and_leads_on(
    client: Client, offer: dict[str, Any], said: str
) -> None:
    event = EventFactory(title="Harbour Days")
    page = text_of(client, page_of(OfferFactory(event=event, **offer)))
    assert said in page
    assert "See what else there is at Harbour Days" in page
    assert "Quantity" not in page


def test_page_of_an_offer_for_others_says_so() -> None:
    offer = OfferFactory()
    offer.target_ticket_tiers.add(TicketTierFactory(event=offer.event))
    visitor = Client()
    assert "Log in to see whether it is for you." in text_of(visitor, page_of(offer))
    visitor.force_login(UserFactory())
    assert "for other ticket tiers or sessions than yours" in text_of(visitor, page_of(offer))


# -- A Buy that is refused ------------------------------------------------------------------------


@pytest.mark.parametrize("own_page", [True, False])
def test_refused_buy_comes_back_with_the_reason_and_what_was_chosen(
    sandbox: Any, browser: Client, own_page: bool
) -> None:
    offer = OfferFactory(inventory_total=5, placement="CHECKOUT")
    other = OfferFactory(event=offer.event, placement="CHECKOUT")
    listed = f"/events/{offer.event.slug}/offers?placement=CHECKOUT"
    url = page_of(offer) if own_page else listed
    sent = form(browser, url) | {"offer": str(offer.pk), "quantity": 4}
    PurchaseFactory(offer=offer, quantity=2)
    back = browser.post(url, sent)
    assert urlsplit(back.url).path == urlsplit(url).path
    if not own_page:
        assert parse_qs(urlsplit(back.url).query)["placement"] == ["CHECKOUT"]
    page = browser.get(back.url).content.decode()
    assert "Only 3 left: choose a smaller quantity." in page
    assert 'name="quantity" value="3"' in page
    assert str(other.pk) not in page or 'name="quantity" value="1"' in page


def test_stripe_away_and_the_kill_switch_are_said_on_the_page(
    sandbox: Any, browser: Client
) -> None:
    offer = OfferFactory()
    url = page_of(offer)
    sent = form(browser, url, quantity=2)
    sandbox.faults(error_rate=1, error_status=500)
    back = browser.post(url, sent)
    page = text_of(browser, back.url)
    assert "The payment provider can't be reached. Nothing was charged" in page
    assert back.url.endswith("quantity=2")
    sandbox.faults()
    call_command("waffle_switch", "purchases", "off", create=True)
    try:
        assert "Sales are paused for the moment." in text_of(browser, browser.post(url, sent).url)
        assert "Not on sale at the moment." in text_of(browser, url)
    finally:
        Switch.objects.update(active=True)
        call_command("waffle_switch", "purchases", "on", create=True)


def test_too_many_tries_are_said_on_the_page(browser: Client, settings: Any) -> None:
    settings.PURCHASE_RATE_LIMIT = "0/m"
    offer = OfferFactory()
    back = browser.post(page_of(offer), {"quantity": 2})
    assert "Too many tries: wait" in text_of(browser, back.url)


def test_form_that_was_left_open_until_its_hold_was_over_buys_again(
    sandbox: Any, browser: Client
) -> None:
    offer = OfferFactory()
    sent = form(browser, page_of(offer))
    for _ in range(3):
        first = browser.post(page_of(offer), sent)
        assert browser.post(page_of(offer), sent).url == first.url  # a double click
        assert counters(offer) == (1, 0)
        purchase = Purchase.objects.latest("created_at")
        assert purchase.checkout_url == first.url
        browser.post(f"/purchases/{purchase.pk}/cancel")
        assert counters(offer) == (0, 0)


def test_what_is_free_leads_to_how_to_get_it(browser: Client) -> None:
    offer = OfferFactory(price=0)
    sent = browser.post(page_of(offer), form(browser, page_of(offer)))
    assert sent.url == f"/purchases/{Purchase.objects.get().pk}"


def test_api_answers_in_english_whatever_the_browser_asks_for(client_of: Any) -> None:
    offer = OfferFactory(inventory_total=0)
    answer = client_of(UserFactory()).post(
        "/api/v1/purchases/", {"offer": str(offer.pk)}, headers={"Accept-Language": "de"}
    )
    assert answer.json()["errors"][0]["detail"] == "This offer is sold out."
