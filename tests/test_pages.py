"""The attendee's pages, by Django's test client; the way to Stripe and back."""

import re
from typing import Any
from urllib.parse import quote

import pytest
import time_machine
from django.test import Client

from offers.models import Event
from purchases.models import Purchase
from purchases.states import Status
from tests.conftest import counters
from tests.factories import EventFactory, OfferFactory, UserFactory

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def browser() -> Client:
    client = Client()
    client.force_login(UserFactory())
    return client


def press_buy(browser: Client, offer: Any, quantity: Any = 1) -> Any:
    url = f"/events/{offer.event.slug}/offers"
    page = browser.get(url).content.decode()
    key = re.search(r'name="key" value="([^"]+)"', page)[1]
    form = {"key": key, "offer": str(offer.pk), "quantity": quantity}
    return lambda: browser.post(url, form)


def test_buying_leads_to_stripe_and_back_to_what_was_bought(sandbox: Any, browser: Client) -> None:
    offer = OfferFactory(title="Hoodie")

    to_stripe = press_buy(browser, offer)()

    purchase = Purchase.objects.get()
    assert (to_stripe.status_code, to_stripe.url) == (302, purchase.checkout_url)
    session = sandbox.client.v1.checkout.sessions.retrieve(purchase.checkout_session_id)
    back = session.success_url.replace("{CHECKOUT_SESSION_ID}", session.id)
    back = back.removeprefix("http://testserver")
    assert "One moment" in browser.get(back).content.decode()
    sandbox.act(session.id, "pay")
    sandbox.deliver()
    page = browser.get(back).content.decode()
    assert "Thank you" in page
    assert "Hoodie" in page
    assert ">Paid<" in browser.get("/purchases").content.decode()


def test_way_back_from_stripe_survives_a_rename_of_the_event(sandbox: Any, browser: Client) -> None:
    offer = OfferFactory(title="Hoodie")
    press_buy(browser, offer)()
    [session] = sandbox.sessions()
    success = session["success_url"].replace("{CHECKOUT_SESSION_ID}", session["id"])
    old = f"/events/{offer.event.slug}/offers"
    assert success == f"http://testserver{old}/success?session_id={session['id']}"
    Event.objects.filter(pk=offer.event_id).update(slug="renamed")
    EventFactory(slug=offer.event.slug)  # the old name may be another event's by now

    back = browser.get(session["cancel_url"], follow=True)
    assert back.redirect_chain == [(f"/events/renamed/offers?offer={offer.pk}", 302)]
    assert "Reserved for you: 1 × Hoodie." in back.content.decode()

    sandbox.act(session["id"], "pay")
    sandbox.deliver()
    paid = browser.get(success, follow=True)
    assert paid.redirect_chain == [
        (f"/events/renamed/offers/success?session_id={session['id']}", 302)
    ]
    assert "Thank you" in paid.content.decode()


def test_double_click_on_buy_is_one_purchase(sandbox: Any, browser: Client) -> None:
    offer = OfferFactory()
    click = press_buy(browser, offer)
    assert click().url == click().url
    assert counters(offer) == (1, 0)


def test_refusals_are_said_on_the_page(sandbox: Any, browser: Client) -> None:
    offer = OfferFactory(inventory_total=2)
    for quantity, said in ((3, "Only 2 left"), (0, "greater than"), ("x", "valid integer")):
        answer = press_buy(browser, offer, quantity)()
        assert said in browser.get(answer.url).content.decode()
    assert counters(offer) == (0, 0)


def test_open_hold_can_be_cancelled_on_my_purchases(sandbox: Any, browser: Client) -> None:
    offer = OfferFactory()
    press_buy(browser, offer)()
    purchase = Purchase.objects.get()
    assert "Pay" in browser.get("/purchases").content.decode()
    answer = browser.post(f"/purchases/{purchase.pk}/cancel")
    assert "Cancelled" in browser.get(answer.url).content.decode()
    assert Purchase.objects.get().status == Status.RELEASED
    again = browser.post(f"/purchases/{purchase.pk}/cancel")
    assert "neither paid nor ended" in browser.get(again.url).content.decode()


def test_pages_of_others_are_not_to_be_found(sandbox: Any, browser: Client) -> None:
    offer = OfferFactory()
    press_buy(browser, offer)()
    purchase = Purchase.objects.get()
    stranger = Client()
    stranger.force_login(UserFactory())
    url = f"/events/{offer.event.slug}/offers/success?session_id={purchase.checkout_session_id}"
    for address in (url, url.replace(offer.event.slug, "renamed")):
        assert stranger.get(address).status_code == 404
    stranger.post(f"/purchases/{purchase.pk}/cancel")
    assert counters(offer) == (1, 0)
    private = EventFactory(is_public=False)
    assert stranger.get(f"/events/{private.slug}/offers").status_code == 404


def test_front_page_leads_to_the_events(client: Client) -> None:
    event = EventFactory()
    assert f"/events/{event.slug}/offers" in client.get("/").content.decode()


@pytest.mark.parametrize("path", ["/login", "/admin/login/"])
def test_login_pages_do_not_let_passwords_be_tried_out(client: Client, path: str) -> None:
    user = UserFactory()
    with time_machine.travel("2026-01-01T12:00:00Z", tick=False):
        for _ in range(10):
            form = {"username": user.username, "password": "wrong"}
            assert client.post(path, form).status_code == 200
        blocked = client.post(path, {"username": user.username, "password": "secret"})
    assert blocked.status_code == 429
    assert int(blocked.headers["Retry-After"]) > 0
    assert "Too many attempts" in blocked.content.decode()
    assert client.post(path, {"username": UserFactory().username, "password": "secret"}).url


def test_visitors_see_the_offers_and_are_asked_to_log_in(client: Client) -> None:
    offer = OfferFactory()
    asked = press_buy(client, offer, 2)()
    page = quote(f"/events/{offer.event.slug}/offers/{offer.pk}?quantity=2", safe="/")
    assert asked.url == f"/login?next={page}"
    for url in ("/purchases", f"/events/{offer.event.slug}/offers/success"):
        assert client.get(url).url.startswith("/login?next=")
    assert client.get("/login").status_code == 200
