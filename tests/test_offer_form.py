"""The organizer's form of an offer: what is asked, what is said beside the fields, the preview.

What the form refuses in general is in test_admin_pages.py; here is how it leads to something right.
"""

import html
import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.db import transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from offers import inventory, lifecycle
from offers.admin import OfferAdmin
from offers.models import Event, Membership, Offer
from offers.offer_list import OfferList
from offers.offer_page import OfferPage
from offers.scoped_admin import ScopedAdmin
from offers_project.local.demo_data import create_demo
from purchases.states import Status
from tests.factories import (
    EventFactory,
    EventSessionFactory,
    MembershipFactory,
    OfferFactory,
    OrganizationFactory,
    PurchaseFactory,
    TicketTierFactory,
    UserFactory,
)
from tests.test_admin_pages import opened, page, save
from tests.test_permissions import browser_of
from tests.two_organizations import World

pytestmark = pytest.mark.django_db


AUTOCOMPLETE = reverse("admin:autocomplete")


class House:
    """An organization with one event, and the browser of its manager."""

    def __init__(self) -> None:
        self.event = EventFactory(slug="conf", title="Conf")
        manager = MembershipFactory(
            organization=self.event.organization, role=Membership.Role.MANAGER
        )
        self.client = browser_of(manager.user)

    def sent(self, **more: Any) -> dict[str, Any]:
        return opened(self.client) | {
            "title": "A mug", "offer_type": "MERCHANDISE", "price": "12.50", "currency": "EUR",
        } | more  # fmt: skip

    def refusals(self, **more: Any) -> dict[str, str]:
        errors = save(self.client, None, self.sent(**more))
        return {field: " ".join(said) for field, said in errors.items()}

    def offer(self, **more: Any) -> Offer:
        offer: Offer = OfferFactory(event=self.event, **more)
        return offer


@pytest.fixture
def house() -> House:
    return House()


# -- What an empty form starts with ---------------------------------------------------------------


def initial(client: Client, **query: str) -> dict[str, Any]:
    answer = client.get(page(Offer, "add"), query)
    assert answer.status_code == 200
    form = answer.context["adminform"].form
    return {"event": form["event"].value(), "currency": form["currency"].value()}


def test_only_event_and_its_latest_currency_are_there_already(house: House) -> None:
    assert initial(house.client) == {"event": house.event.pk, "currency": "USD"}
    house.offer(currency="EUR")
    house.offer(currency="CHF")
    OfferFactory(currency="JPY")  # another organization's
    assert initial(house.client) == {"event": house.event.pk, "currency": "CHF"}


def test_event_that_the_list_was_filtered_by_is_chosen(house: House) -> None:
    other = EventFactory(organization=house.event.organization)
    assert initial(house.client)["event"] is None
    listed = initial(house.client, _changelist_filters=f"event__id__exact={other.pk}&q=x")
    assert listed["event"] == other.pk
    assert initial(house.client, event=str(other.pk))["event"] == other.pk


@pytest.mark.parametrize("asked", ["foreign", "no id", "' --"])
def test_event_that_is_not_ones_own_is_not_chosen(house: House, asked: str) -> None:
    EventFactory(organization=house.event.organization)  # else the only one would be
    foreign = EventFactory(title="Rival fest")
    key = str(foreign.pk) if asked == "foreign" else asked
    assert initial(house.client, event=key)["event"] is None
    assert initial(house.client, _changelist_filters=f"event__id__exact={key}")["event"] is None
    assert "Rival" not in house.client.get(page(Offer, "add"), {"event": key}).content.decode()


def test_type_is_chosen_and_not_guessed(house: House) -> None:
    assert set(house.refusals(offer_type="")) == {"offer_type"}


def test_form_is_in_groups(house: House) -> None:
    def groups(answer: Any) -> list[str]:
        return [fieldset.name for fieldset in answer.context["adminform"]]

    new = groups(house.client.get(page(Offer, "add")))
    assert new == [
        "What is sold", "Price", "Stock and limits", "When and where it is shown", "For whom",
        "Delivery",
    ]  # fmt: skip
    stored = house.client.get(page(Offer, "change", house.offer().pk))
    assert groups(stored) == [*new, "Stripe and dates"]


# -- Errors beside their fields -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "field", "said"),
    [
        pytest.param(
            {
                "starts_at_0": "2090-01-02", "starts_at_1": "00:00:00",
                "expires_at_0": "2090-01-01", "expires_at_1": "00:00:00",
            },
            "expires_at", "must end after it starts", id="window",
        ),
        pytest.param({"price": "0.49"}, "price", "no less than 0.50 EUR", id="minimum"),
        pytest.param(
            {"price": "49", "currency": "JPY"}, "price", "no less than 50 JPY", id="minimum of yen"
        ),
        pytest.param({"price": "12.505"}, "price", "more digits", id="digits"),
        pytest.param({"price": "500.5", "currency": "JPY"}, "price", "more digits", id="yen"),
        pytest.param({"price": "1.23456"}, "price", "digits", id="very many digits"),
        pytest.param({"price": "-1"}, "price", "0 is free", id="negative"),
        pytest.param({"price": "cheap"}, "price", "for example 12.50", id="no number"),
        pytest.param({"price": "9" * 20}, "price", "too large", id="too large"),
        pytest.param({"price": ""}, "price", "0 is free", id="no price"),
        pytest.param(
            {"original_price": "10"}, "original_price", "can't be below", id="original price"
        ),
        pytest.param({"max_per_user": "0"}, "max_per_user", "no limit", id="most"),
        pytest.param({"inventory_total": "-1"}, "inventory_total", "unlimited", id="total"),
        pytest.param({"title": ""}, "title", "a name", id="no title"),
        pytest.param({"event": ""}, "event", "Choose whose", id="no event"),
        pytest.param({"event": "abc"}, "event", "not a valid", id="no event's id"),
        pytest.param({"target_sessions": ["x"]}, "target_sessions", "x", id="no session's id"),
        pytest.param({"ticket_tier": "x"}, "ticket_tier", "the event's", id="no tier's id"),
        pytest.param(
            {"image_url": "http://example.org/mug.png"}, "image_url", "https://", id="http"
        ),
        pytest.param({"image_url": "javascript:x"}, "image_url", "https://", id="script"),
        pytest.param({"currency": "EUROO"}, "currency", "mean EUR (Euro)", id="euroo"),
        pytest.param({"currency": "Swiss frank"}, "currency", "mean CHF", id="frank"),
        pytest.param({"currency": "EUS"}, "currency", "did you mean", id="no code"),
        pytest.param({"currency": "☃☃☃"}, "currency", "for example EUR", id="snowmen"),
        pytest.param({"currency": ""}, "currency", "Say which", id="no currency"),
        pytest.param(
            {"shipping_countries": "Germny"}, "shipping_countries", "mean DE", id="country"
        ),
    ],
)  # fmt: skip
def test_mistake_is_told_beside_its_field_with_what_to_do(
    house: House, wrong: dict[str, str], field: str, said: str
) -> None:
    refusals = house.refusals(**wrong)
    assert set(refusals) == {field}
    assert said in refusals[field]
    assert not Offer.objects.exists()


def test_unknown_currency_is_all_that_is_said_of_its_amounts(house: House) -> None:
    """0.10 is too little in dollars, which nobody asked for."""
    assert set(house.refusals(currency="XXX", price="0.10")) == {"currency"}


@pytest.mark.parametrize("typed", ["eur", " EUR ", "€", "Euro", "euro"])
def test_currency_is_understood_by_code_sign_and_name(house: House, typed: str) -> None:
    assert house.refusals(currency=typed) == {}
    assert Offer.objects.get().currency == "EUR"


def test_event_session_and_tier_of_others_are_refused_and_not_named(house: House) -> None:
    event = EventFactory(title="Rival fest")
    session = EventSessionFactory(event=event, title="Rival talk")
    tier = TicketTierFactory(event=event, title="Rival tier")
    sent = house.sent(
        event=event.pk, target_sessions=[session.pk], target_ticket_tiers=[tier.pk],
        ticket_tier=tier.pk, offer_type="TICKET_UPGRADE",
    )  # fmt: skip
    answer = house.client.post(page(Offer, "add"), sent)
    errors = answer.context["adminform"].form.errors
    assert set(errors) == {"event", "target_sessions", "target_ticket_tiers", "ticket_tier"}
    assert "Rival" not in answer.content.decode()


def test_targets_are_of_the_offers_own_event(house: House) -> None:
    other = EventFactory(organization=house.event.organization)
    refusals = house.refusals(
        event=house.event.pk,
        target_sessions=[EventSessionFactory(event=other).pk],
        target_ticket_tiers=[TicketTierFactory(event=other).pk],
    )
    assert set(refusals) == {"target_sessions", "target_ticket_tiers"}


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        ({"price": "49"}, "price", "3 sold at 50.00 USD"),
        ({"currency": "EUR"}, "currency", "3 sold at 50.00 USD"),
        ({"offer_type": "SERVICE"}, "offer_type", "3 sold and 2 on hold"),
    ],
)
def test_what_sales_forbid_is_told_with_what_to_do_instead(
    house: House, change: dict[str, str], field: str, said: str
) -> None:
    offer = house.offer()
    PurchaseFactory(offer=offer, quantity=3, status=Status.PAID)
    PurchaseFactory(offer=offer, quantity=2)
    errors = save(house.client, offer, opened(house.client, offer) | change)
    assert set(errors) == {field}
    assert said in errors[field][0]
    assert "duplicate" in errors[field][0]
    # And before anybody tries.
    form = house.client.get(page(Offer, "change", offer.pk)).context["adminform"].form
    assert "3 sold" in form.fields[field].help_text


def test_errors_are_listed_above_the_form_and_what_was_typed_is_kept(house: House) -> None:
    sent = house.sent(
        title="", price="0.10", expires_at_0="never", description="A <b>large</b> one"
    )
    shown = house.client.post(page(Offer, "add"), sent).content.decode()
    summary = shown[shown.index('id="offer_errors"') : shown.index('id="offer_form"')]
    links = re.findall(r'href="#(\w+)"', summary)
    assert links == ["id_title", "id_price", "id_expires_at_0"]
    for link in links:
        assert f'id="{link}"' in shown
    assert 'value="0.10"' in shown
    assert 'value="never"' in shown
    assert "A &lt;b&gt;large&lt;/b&gt; one" in shown
    assert 'id="offer_errors"' not in house.client.get(page(Offer, "add")).content.decode()


# -- What a field says of itself ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("currency", "said"), [("EUR", "0.50 EUR"), ("JPY", "at least 50 JPY"), ("KWD", "in KWD")]
)
def test_prices_help_names_the_minimum_of_its_currency(
    house: House, currency: str, said: str
) -> None:
    offer = house.offer(currency=currency, price=100)
    form = house.client.get(page(Offer, "change", offer.pk)).context["adminform"].form
    assert said in form.fields["price"].help_text


@pytest.mark.parametrize(("currency", "written"), [("USD", "50.00"), ("JPY", "50")])
def test_amounts_have_the_digits_of_their_currency(
    house: House, currency: str, written: str
) -> None:
    offer = house.offer(currency=currency, original_price=50)
    sent = opened(house.client, offer)
    assert str(sent["price"]) == str(sent["original_price"]) == written


def test_facts_of_a_stored_offer_are_shown(house: House, settings: Any) -> None:
    settings.STRIPE_API_BASE = "https://api.stripe.com"
    settings.STRIPE_SECRET_KEY = "sk_test_x"
    offer = house.offer(inventory_total=10)
    PurchaseFactory(offer=offer, quantity=3, status=Status.PAID)
    PurchaseFactory(offer=offer, quantity=2)
    Offer.objects.filter(pk=offer.pk).update(stripe_product_id="prod_1", stripe_price_id="price_1")
    shown = house.client.get(page(Offer, "change", offer.pk)).content.decode()
    assert "3 sold, 2 on hold, 5 left" in shown
    assert 'href="https://dashboard.stripe.com/test/products/prod_1"' in shown
    assert 'href="https://dashboard.stripe.com/test/prices/price_1"' in shown
    settings.STRIPE_SECRET_KEY = "sk_live_x"
    shown = house.client.get(page(Offer, "change", offer.pk)).content.decode()
    assert 'href="https://dashboard.stripe.com/products/prod_1"' in shown


# -- The preview ----------------------------------------------------------------------------------


def preview(client: Client, offer: Offer | None = None, **sent: Any) -> Any:
    args = [offer.pk] if offer else []
    return client.post(reverse("admin:offers_offer_preview", args=args), sent)


def test_preview_is_the_card_that_attendees_get(house: House) -> None:
    """The same markup, but for the key and the token of a form that can be sent."""
    offer = house.offer(
        title="Hoodie & more", description="Blue\nor red", original_price=80,
        image_url="https://example.org/h.png", inventory_total=5, shipping_countries=["DE"],
    )  # fmt: skip

    def card(text: str) -> str:
        found = text[text.index("<article") : text.index("</article>")]
        return re.sub(r' (value|max)="[^"]*"', "", found)

    seen = browser_of(UserFactory()).get(reverse("offers-page", args=["conf"])).content.decode()
    sent = opened(house.client, offer)
    drawn = preview(house.client, offer, **sent).json()["page"]
    assert card(drawn) == card(seen)
    assert "only 5 left" in drawn
    assert "offers/page.css" in drawn
    framed = house.client.get(page(Offer, "change", offer.pk)).content.decode()
    (srcdoc,) = re.findall(r'srcdoc="([^"]*)"', framed)
    assert card(html.unescape(srcdoc)) == card(seen)


def test_preview_shows_what_it_can_of_a_form_half_written(house: House) -> None:
    sent = {"title": "Mug", "price": "1x", "currency": "e", "starts_at_0": "soon"}
    answer = preview(house.client, **sent, is_active="on").json()
    assert "<h3>Mug</h3>" in answer["page"]
    assert "Free" not in answer["page"]
    assert answer["said"] == "Mug, no price yet. Attendees can buy it once it is saved."
    assert answer["price_hint"] == "0 is free."
    uncharged = preview(house.client, title="Mug", price="12.505", currency="EUR").json()
    assert "Mug, no price yet" in uncharged["said"]
    nothing = preview(house.client).json()
    assert nothing["said"].startswith("No title yet, no price yet.")
    priced = preview(house.client, title="Mug", price="0", currency="eur", is_active="on").json()
    assert '<span class="price">Free</span>' in priced["page"]
    assert "0.50 EUR" in priced["price_hint"]
    assert Offer.objects.count() == 0


def test_preview_escapes_everything(house: House) -> None:
    evil = '"><script>alert(1)</script>'
    answer = preview(
        house.client, title=evil, description=evil, price="1", currency=evil, image_url=evil
    ).json()
    assert "<script" not in answer["page"]
    image = 'https://example.org/"onerror="x'
    assert 'onerror="x' not in preview(house.client, image_url=image).json()["page"]
    offer = house.offer(title=evil)
    shown = house.client.get(page(Offer, "change", offer.pk)).content.decode()
    assert "<script>alert" not in shown
    assert "<script>alert" not in html.unescape(re.findall(r'srcdoc="([^"]*)"', shown)[0])


@pytest.mark.parametrize(
    ("days", "more", "said"),
    [
        (1, {}, "Attendees can buy it from"),
        (-1, {"is_active": ""}, "don't see it: This offer is not on sale."),
        (-1, {"inventory_total": "0"}, "Attendees see that it is sold out."),
    ],
)
def test_preview_says_when_attendees_do_not_see_it(
    house: House, days: int, more: dict[str, str], said: str
) -> None:
    starts_at = timezone.now() + timedelta(days=days)
    sent: dict[str, str] = {
        "title": "Mug", "price": "1", "currency": "EUR", "is_active": "on",
        "starts_at_0": f"{starts_at:%Y-%m-%d}", "starts_at_1": "00:00:00",
    } | more  # fmt: skip
    if not sent["is_active"]:
        del sent["is_active"]
    assert said in preview(house.client, **sent).json()["said"]


def test_preview_is_for_who_may_edit_and_locks_nothing() -> None:
    world = World()
    sent = {"title": "Mine", "event": world.away.event.pk}
    for who, of_ones_own, of_a_new_one in (
        ("anonymous", 302, 302), ("buyer", 302, 302), ("support", 403, 403), ("rival", 404, 200),
        ("ticked", 404, 403), ("manager", 200, 200), ("owner", 200, 200), ("superuser", 200, 200),
    ):  # fmt: skip
        client = browser_of(world.people[who])
        assert preview(client, world.home.offer, **sent).status_code == of_ones_own, who
        answer = preview(client, **sent)
        assert answer.status_code == of_a_new_one, who
        if who in ("owner", "manager"):
            assert "Rival" not in answer.content.decode()
    got = browser_of(world["owner"]).get(reverse("admin:offers_offer_preview"))
    assert got.status_code == 405
    world.home.offer.refresh_from_db()
    assert world.home.offer.title == "Home offer"


def test_who_only_looks_sees_the_card_too() -> None:
    world = World()
    url = page(Offer, "change", world.home.offer.pk)
    shown = browser_of(world["support"]).get(url).content.decode()
    assert "Home offer</a></h3>" in html.unescape(re.findall(r'srcdoc="([^"]*)"', shown)[0])
    assert 'name="title"' not in shown


# -- After it is saved ----------------------------------------------------------------------------


def told(client: Client, offer: Offer | None, sent: dict[str, Any]) -> str:
    address = page(Offer, "change", offer.pk) if offer else page(Offer, "add")
    answer = client.post(address, sent, follow=True)
    assert answer.redirect_chain, answer.context["errors"]
    return html.unescape(" ".join(str(message) for message in answer.context["messages"]))


def test_saving_says_what_is_next(house: House) -> None:
    said = told(house.client, None, house.sent())
    offer = Offer.objects.get()
    assert f'Attendees can buy it now. <a href="/events/conf/offers/{offer.pk}">' in said
    paused = opened(house.client, offer)
    del paused["is_active"]
    assert "Attendees don't see it" in told(house.client, offer, paused)
    later = {"starts_at_0": "2090-01-02", "starts_at_1": "10:00:00", "is_active": "on"}
    said = told(house.client, offer, opened(house.client, offer) | later)
    assert "Attendees can buy it from 2 January 2090, 10:00 UTC on." in said


def test_saving_says_what_is_missing_before_it_can_be_delivered(house: House) -> None:
    said = told(house.client, None, house.sent(offer_type="TICKET_UPGRADE"))
    assert "It is on sale, but" in said


# -- Members, events ------------------------------------------------------------------------------


def test_role_is_chosen_and_not_guessed() -> None:
    world = World()
    answer = browser_of(world["owner"]).get(page(Membership, "add"))
    assert answer.context["adminform"].form.fields["role"].choices[0][0] == ""


def test_last_owner_is_not_demoted_or_removed() -> None:
    world = World()
    owner, manager = world.home.memberships[:2]
    client = browser_of(world["owner"])
    change = page(Membership, "change", owner.pk)
    sent = {"organization": owner.organization_id, "user": "Owner", "role": "support"}
    refused = client.post(change, sent)
    assert "last owner" in refused.context["adminform"].form.errors["role"][0]
    for address, form in (
        (page(Membership, "delete", owner.pk), {"post": "yes"}),
        (
            page(Membership, "changelist"),
            {
                "action": "delete_selected", "post": "yes",
                "_selected_action": [owner.pk, manager.pk],
            },
        ),
    ):  # fmt: skip
        answer = client.post(address, form, follow=True)
        assert "last owner" in " ".join(str(m) for m in answer.context["messages"])
    assert world.home.organization.memberships.count() == 3

    Membership.objects.filter(pk=manager.pk).update(role="owner")
    assert client.post(change, sent).status_code == 302
    owner.refresh_from_db()
    assert owner.role == "support"


@pytest.mark.parametrize("change", [{"role": "manager"}, {"DELETE": "on"}], ids=str)
def test_last_owner_stays_on_the_organizations_page(change: dict[str, str]) -> None:
    organization = OrganizationFactory()
    owner = MembershipFactory(organization=organization, role=Membership.Role.OWNER)
    client = browser_of(owner.user)
    url = page(type(organization), "change", organization.pk)
    sent = {
        "name": "New", "slug": organization.slug,
        "memberships-TOTAL_FORMS": "1", "memberships-INITIAL_FORMS": "1",
        "memberships-0-id": owner.pk, "memberships-0-organization": organization.pk,
        "memberships-0-user": owner.user.username, "memberships-0-role": "owner",
    }  # fmt: skip
    wrong = {f"memberships-0-{name}": value for name, value in change.items()}
    refused = client.post(url, sent | wrong)
    assert refused.status_code == 200
    assert "last owner" in html.unescape(refused.content.decode())
    assert client.post(url, sent).status_code == 302
    organization.refresh_from_db()
    assert organization.name == "New"


def test_event_that_ends_before_it_starts_is_an_error_beside_the_field(house: House) -> None:
    sent = {
        "organization": house.event.organization_id, "title": "Day", "slug": "day",
        "starts_at_0": "2090-01-02", "starts_at_1": "10:00:00",
        "ends_at_0": "2090-01-01", "ends_at_1": "10:00:00",
        "sessions-TOTAL_FORMS": "0", "sessions-INITIAL_FORMS": "0",
        "ticket_tiers-TOTAL_FORMS": "0", "ticket_tiers-INITIAL_FORMS": "0",
    }  # fmt: skip
    refused = house.client.post(page(Event, "add"), sent)
    assert set(refused.context["adminform"].form.errors) == {"ends_at"}


def test_event_has_its_sessions_and_tiers_on_its_page(house: House) -> None:
    sent = {
        "organization": house.event.organization_id, "title": "Day", "slug": "day",
        "sessions-TOTAL_FORMS": "1", "sessions-INITIAL_FORMS": "0",
        "sessions-0-title": "Talk", "sessions-0-slug": "talk",
        "ticket_tiers-TOTAL_FORMS": "1", "ticket_tiers-INITIAL_FORMS": "0",
        "ticket_tiers-0-title": "Standard", "ticket_tiers-0-slug": "standard",
    }  # fmt: skip
    assert house.client.post(page(Event, "add"), sent).status_code == 302
    event = Event.objects.get(slug="day")
    assert event.sessions.get().title == "Talk"
    assert event.ticket_tiers.get().title == "Standard"


def test_demos_organizer_sets_up_an_offer_with_five_fields() -> None:
    create_demo(now=timezone.now())
    event = Event.objects.get(slug="demo-conf")
    membership = Membership.objects.get(user__username="organizer")
    client = browser_of(membership.user)
    sent = opened(client) | {
        "event": event.pk, "offer_type": "MERCHANDISE", "title": "Mug", "price": "9",
        "inventory_total": "50",
    }  # fmt: skip
    assert save(client, None, sent) == {}
    assert Offer.objects.get(title="Mug").currency == "USD"


# -- What somebody else did meanwhile -------------------------------------------------------------


def test_form_does_not_undo_what_was_done_since_it_was_opened(house: House) -> None:
    offer = house.offer(inventory_total=10, title="Hoodie")
    purchase = PurchaseFactory(offer=offer, quantity=2, status=Status.PAID)
    sent = opened(house.client, offer) | {"title": "Typed"}
    with transaction.atomic():
        inventory.write_off(offer_id=offer.pk, quantity=2)
    type(purchase).objects.filter(pk=purchase.pk).update(status=Status.REFUNDED)
    lifecycle.take(lifecycle.PAUSE, offer.pk, now=timezone.now(), source="test", actor=None)
    answer = house.client.post(page(Offer, "change", offer.pk), sent)
    form = answer.context["adminform"].form
    assert set(form.errors) == {"__all__", "title", "inventory_total", "is_active"}
    assert form.errors["inventory_total"] == ["Stored by now: 8."]
    assert form.errors["is_active"] == ["Stored by now: off."]
    shown = answer.content.decode()
    assert "changed after you opened this page" in shown
    assert 'value="Typed"' in shown
    offer.refresh_from_db()
    assert (offer.title, offer.inventory_total, offer.is_active) == ("Hoodie", 8, False)
    # Whoever has read that may say so.
    again = sent | {"shown_at": form["shown_at"].value(), "inventory_total": "8"}
    assert save(house.client, offer, again) == {}
    offer.refresh_from_db()
    assert (offer.title, offer.inventory_total, offer.is_active) == ("Typed", 8, True)


def test_form_is_saved_whatever_was_bought_since_it_was_opened(house: House) -> None:
    offer = house.offer(inventory_total=10)
    sent = opened(house.client, offer) | {"title": "Typed"}
    with transaction.atomic():
        inventory.reserve(offer_id=offer.pk, quantity=2)
        inventory.confirm(offer_id=offer.pk, quantity=1)
    assert save(house.client, offer, sent) == {}
    assert 'name="shown_at"' in house.client.get(page(Offer, "change", offer.pk)).content.decode()


def test_form_without_the_time_that_it_showed_is_refused(house: House) -> None:
    offer = house.offer()
    sent = opened(house.client, offer) | {"title": "Typed", "shown_at": ""}
    assert "__all__" in save(house.client, offer, sent)


# -- How the page is put together -----------------------------------------------------------------


def test_nothing_of_one_part_of_the_admin_of_offers_hides_what_another_has() -> None:
    """Two columns of one name were one: the page showed the list's."""
    admin_class = type(admin.site.get_model_admin(Offer))
    parts = [
        part
        for part in admin_class.__mro__
        if issubclass(part, ScopedAdmin)
        and part not in ScopedAdmin.__mro__
        and part not in (admin_class, OfferAdmin)
    ]
    assert {OfferList, OfferPage} <= set(parts)
    owners: dict[str, list[str]] = {}
    for part in parts:
        for name in vars(part):
            # What all have is extended by each; Python's own is everybody's.
            if not hasattr(ScopedAdmin, name) and not name.startswith("__"):
                owners.setdefault(name, []).append(part.__name__)
    assert {name: found for name, found in owners.items() if len(found) > 1} == {}


def test_time_that_is_none_fills_no_form(house: House) -> None:
    assert house.client.get(page(Offer, "add"), {"starts_at": "zz"}).status_code == 200


# -- For whom -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "field", "factory"),
    [
        ("offer", "target_sessions", EventSessionFactory),
        ("offer", "target_ticket_tiers", TicketTierFactory),
        ("offer", "ticket_tier", TicketTierFactory),
        ("registration", "sessions", EventSessionFactory),
    ],
)
def test_choices_are_those_of_the_event_that_the_form_names(
    model: str, field: str, factory: Any
) -> None:
    house = House()
    here = factory(event=house.event)
    there = factory(event=EventFactory(organization=house.event.organization))
    query = {"app_label": "offers", "model_name": model, "field_name": field, "term": ""}

    def offered(**more: Any) -> set[str]:
        found = house.client.get(AUTOCOMPLETE, query | more).json()["results"]
        return {each["id"] for each in found}

    assert offered(event=house.event.pk) == {str(here.pk)}
    assert offered(event=EventFactory().pk) == set()  # a stranger's
    # No event is chosen yet, or what is no event at all.
    assert offered() == offered(event="x") == {str(here.pk), str(there.pk)}
