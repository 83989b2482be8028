"""Ticket upgrades: from the payment to the better ticket with its code, and back."""

import io
from email.message import EmailMessage
from typing import Any

import pytest
import segno
from django.core import mail as outbox
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from fulfillment import delivery
from fulfillment.models import Fulfillment
from fulfillment.states import Status
from fulfillment.tickets.models import TicketUpgrade
from offers.models import Offer, Registration
from purchases import mail, refunds, states
from purchases.models import Email
from tests.conftest import buy, counters, deliver_now
from tests.factories import (
    EventFactory,
    MembershipFactory,
    OfferFactory,
    PurchaseFactory,
    RegistrationFactory,
    TicketTierFactory,
    UserFactory,
)
from tests.test_codes import svg_of
from tests.ticket_upgrades import (
    move_by_hand,
    move_money,
    paid_upgrade,
    refund,
    tier_of,
    upgrade,
    upgrade_offer,
)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def registration() -> Registration:
    event = EventFactory(title="Conf")
    return RegistrationFactory(
        event=event,
        user=UserFactory(email="attendee@example.com"),
        ticket_tier=TicketTierFactory(event=event, slug="standard", title="Standard"),
    )


@pytest.fixture
def vip(registration: Registration) -> Any:
    return TicketTierFactory(event=registration.event, slug="vip", title="VIP")


# -- The whole way --------------------------------------------------------------------------------


def test_upgrade_is_bought_delivered_shown_checked_and_taken_back_by_a_refund(
    sandbox: Any, client_of: Any, registration: Registration, vip: Any
) -> None:
    offer = upgrade_offer(vip, title="VIP upgrade", inventory_total=10)
    api = client_of(registration.user)
    bought = buy(api, offer).json()
    sandbox.act(bought["checkout_session_id"], "pay")
    sandbox.deliver()
    assert deliver_now(bought["id"]).status == Status.FULFILLED

    # The ticket itself.
    assert tier_of(registration) == "vip"
    said = api.get(f"/api/v1/purchases/{bought['id']}/").json()["fulfillment"]
    upgraded = TicketUpgrade.objects.get()
    picture = f"http://testserver/purchases/{bought['id']}/code.svg"
    assert {key: value for key, value in said.items() if key != "fulfilled_at"} == {
        "type": "TICKET",
        "status": "FULFILLED",
        "ticket_tier": "vip",
        "previous_ticket_tier": "standard",
        "ticket_code": upgraded.code,
        "ticket_code_url": picture,
    }

    # Its code, on the page, in the e-mail, and at the door.
    address = f"http://testserver/check-in/{upgraded.code}"
    browser = Client()
    browser.force_login(registration.user)
    page = browser.get(f"/purchases/{bought['id']}").content.decode()
    assert f'src="{picture.removeprefix("http://testserver")}"' in page
    assert f"{upgraded.code[:4]}-{upgraded.code[4:8]}-{upgraded.code[8:]}" in page
    assert browser.get(picture).content == api.get(picture).content == svg_of(address)
    mail.send_due(now=timezone.now())
    [message] = [m for m in outbox.outbox if m.subject == "Your ticket for Conf is now VIP"]
    attached = parsed(message)
    assert attached["image/png"] == png_of(address)
    for kind in ("text/plain", "text/html"):
        assert f"{upgraded.code[:4]}-{upgraded.code[4:8]}-{upgraded.code[8:]}" in attached[kind]
        assert f"http://testserver/purchases/{bought['id']}" in attached[kind]
    door = Client()
    door.force_login(MembershipFactory(organization=offer.event.organization).user)
    assert "Valid: VIP" in door.get(address).content.decode()

    # And back.
    owner = client_of(MembershipFactory(organization=offer.event.organization).user)
    assert owner.post(f"/api/v1/purchases/{bought['id']}/refund/", {}).status_code == 202
    refunds.send_due(now=timezone.now())
    sandbox.deliver()
    delivery.take_in(now=timezone.now())
    assert tier_of(registration) == "standard"
    assert Fulfillment.objects.get().status == Status.REVOKED
    said = api.get(f"/api/v1/purchases/{bought['id']}/").json()["fulfillment"]
    assert said["status"] == "REVOKED"
    assert {said[key] for key in said if key.endswith(("tier", "code", "url"))} == {None}
    assert browser.get(picture).status_code == 404
    assert upgraded.code[:4] not in browser.get(f"/purchases/{bought['id']}").content.decode()
    checked = door.get(address).content.decode()
    assert "Refunded" in checked
    assert "Valid" not in checked
    assert counters(offer) == (0, 0)


def parsed(message: Any) -> dict[str, Any]:
    """The message's parts by their type, as a mail program gets them."""
    whole: EmailMessage = message.message()
    return {
        part.get_content_type(): (
            part.get_payload(decode=True)
            if part.get_content_maintype() == "image"
            else part.get_payload(decode=True).decode()
        )
        for part in whole.walk()
        if not part.is_multipart()
    }


def png_of(text: str) -> bytes:
    file = io.BytesIO()
    segno.make(text, micro=False, error="m").save(file, kind="png", scale=8, border=4)
    return file.getvalue()


# -- Once, and only what can be given -------------------------------------------------------------


def test_delivering_twice_upgrades_once(registration: Registration, vip: Any) -> None:
    purchase = paid_upgrade(registration, vip)
    for _ in range(3):
        deliver_now(purchase.pk)
    fulfillment = Fulfillment.objects.select_related("purchase").get()
    code = TicketUpgrade.objects.get().code
    delivery.DELIVERERS["TICKET"].deliver(fulfillment, now=timezone.now())
    assert TicketUpgrade.objects.get().code == code
    assert Email.objects.filter(occasion="ticket_upgraded").count() == 1


def test_several_units_are_one_upgrade(registration: Registration, vip: Any) -> None:
    purchase = PurchaseFactory(
        offer=upgrade_offer(vip), user=registration.user, quantity=3, status="paid"
    )
    deliver_now(purchase.pk)
    assert TicketUpgrade.objects.count() == 1
    refund(purchase)
    assert tier_of(registration) == "standard"


def test_offer_without_a_tier_waits_for_the_organizer(registration: Registration, vip: Any) -> None:
    offer = upgrade_offer(None, event=registration.event, title="Better ticket")
    purchase = PurchaseFactory(offer=offer, user=registration.user, status="paid")

    failed = deliver_now(purchase.pk)

    assert failed.status == Status.FAILED
    assert failed.error == "Say on the page of the offer Better ticket which ticket tier it gives."
    Offer.objects.filter(pk=offer.pk).update(ticket_tier=vip)
    delivery.retry_offer(offer.pk, now=timezone.now())
    assert deliver_now(purchase.pk).status == Status.FULFILLED
    assert tier_of(registration) == "vip"


def test_buyer_who_is_not_registered_waits_for_a_registration(vip: Any) -> None:
    stranger = UserFactory(username="stranger")
    purchase = PurchaseFactory(offer=upgrade_offer(vip), user=stranger, status="paid")
    failed = deliver_now(purchase.pk)
    assert failed.status == Status.FAILED
    assert "The buyer isn't registered at Conf: add their registration" in failed.error
    assert "stranger" not in failed.error  # which is logged
    assert not Email.objects.filter(occasion="ticket_upgraded").exists()

    refund(purchase)

    assert Fulfillment.objects.get().status == Status.REVOKED
    assert not TicketUpgrade.objects.exists()


def test_tier_that_was_moved_to_another_event_is_not_given(
    registration: Registration, vip: Any
) -> None:
    purchase = paid_upgrade(registration, vip)
    vip.event = EventFactory(organization=registration.event.organization)
    vip.save()
    failed = deliver_now(purchase.pk)
    assert failed.status == Status.FAILED
    assert "moved to another event" in failed.error
    assert tier_of(registration) == "standard"


def test_attendee_who_has_the_tier_gets_a_code_and_a_refund_leaves_it(
    registration: Registration, vip: Any
) -> None:
    move_by_hand(registration, vip)
    upgraded = upgrade(registration, vip)
    assert (upgraded.from_tier, upgraded.to_tier) == (vip, vip)
    assert refund(upgraded).transitions.last().reason == "refunded"
    assert tier_of(registration) == "vip"


def test_offer_s_tier_of_the_moment_of_delivery_counts(
    registration: Registration, vip: Any
) -> None:
    gold = TicketTierFactory(event=registration.event, slug="gold")
    purchase = paid_upgrade(registration, vip)
    Offer.objects.filter(pk=purchase.offer_id).update(ticket_tier=gold)
    deliver_now(purchase.pk)
    assert tier_of(registration) == "gold"

    Offer.objects.filter(pk=purchase.offer_id).update(ticket_tier=vip)
    assert tier_of(registration) == "gold"
    refund(purchase)
    assert tier_of(registration) == "standard"


def test_what_staff_marked_as_done_shows_no_code_and_a_refund_takes_nothing_back(
    registration: Registration, vip: Any, client_of: Any
) -> None:
    purchase = paid_upgrade(registration, vip)
    fulfillment = delivery.hear_of(purchase.pk, now=timezone.now())
    assert fulfillment is not None
    delivery.mark_done(fulfillment.pk, reason="at the desk", now=timezone.now(), source="admin")
    browser = Client()
    browser.force_login(registration.user)
    assert "has upgraded your ticket" in browser.get(f"/purchases/{purchase.pk}").content.decode()
    said = client_of(registration.user).get(f"/api/v1/purchases/{purchase.pk}/").json()
    assert said["fulfillment"]["status"] == "FULFILLED"
    assert said["fulfillment"]["ticket_tier"] is None
    assert browser.get(f"/purchases/{purchase.pk}/code.svg").status_code == 404
    refund(purchase)
    assert tier_of(registration) == "standard"


def test_worker_without_an_address_of_the_pages_sends_the_code_alone(
    registration: Registration, vip: Any, settings: Any
) -> None:
    settings.FRONTEND_URL = ""
    upgraded = upgrade(registration, vip)
    mail.send_due(now=timezone.now())
    [message] = [m for m in outbox.outbox if "is now VIP" in m.subject]
    assert parsed(message)["image/png"] == png_of(upgraded.code)


# -- What staff do in between ---------------------------------------------------------------------


def test_ticket_that_staff_moved_stays_and_the_refund_says_so(
    registration: Registration, vip: Any, caplog: pytest.LogCaptureFixture
) -> None:
    gold = TicketTierFactory(event=registration.event, slug="gold", title="Gold")
    upgraded = upgrade(registration, vip)
    move_by_hand(registration, gold)

    revoked = refund(upgraded)

    assert tier_of(registration) == "gold"
    remark = "The ticket stays Gold: staff had moved it from VIP."
    assert revoked.transitions.last().reason == f"refunded ({remark})"
    upgraded.refresh_from_db()
    assert upgraded.revoked_at is not None
    assert "ticket_moved_by_hand" in caplog.text


def test_tier_that_staff_set_between_two_upgrades_is_what_a_refund_leads_back_to(
    registration: Registration, vip: Any
) -> None:
    gold = TicketTierFactory(event=registration.event, slug="gold")
    first = upgrade(registration, vip)
    move_by_hand(registration, gold)
    second = upgrade(registration, vip)
    refund(first)
    assert tier_of(registration) == "vip"
    refund(second)
    assert tier_of(registration) == "gold"


def test_refund_that_is_under_way_hides_the_code_and_its_failure_shows_it_again(
    registration: Registration, vip: Any, client_of: Any
) -> None:
    upgraded = upgrade(registration, vip)
    purchase = upgraded.fulfillment.purchase
    api = client_of(registration.user)
    path = f"/purchases/{purchase.pk}/code.svg"

    def shown() -> tuple[Any, int]:
        said = api.get(f"/api/v1/purchases/{purchase.pk}/").json()["fulfillment"]
        return said["ticket_code"], api.get(path).status_code

    assert shown() == (upgraded.code, 200)
    move_money(purchase, states.REQUEST_REFUND)
    assert shown() == (None, 404)
    assert tier_of(registration) == "vip"  # until the money is back
    move_money(purchase, states.REFUND_FAILED)
    assert shown() == (upgraded.code, 200)


# -- Lists, and the offer's side of the API -------------------------------------------------------


def test_list_of_purchases_takes_as_many_queries_for_many_upgrades(
    registration: Registration, vip: Any, client_of: Any
) -> None:
    api = client_of(registration.user)
    queries = []
    for wanted in (1, 6):
        while TicketUpgrade.objects.count() < wanted:
            upgrade(registration, vip)
        with CaptureQueriesContext(connection) as asked:
            listed = api.get("/api/v1/purchases/").json()["results"]
        assert [each["fulfillment"]["ticket_tier"] for each in listed] == ["vip"] * wanted
        queries.append(len(asked))
    assert queries[0] == queries[1]


@pytest.fixture
def member(registration: Registration, client_of: Any) -> Any:
    return client_of(MembershipFactory(organization=registration.event.organization).user)


def new_offer(registration: Registration, **changes: Any) -> dict[str, Any]:
    return {
        "event": registration.event.slug, "title": "VIP upgrade", "offer_type": "TICKET_UPGRADE",
        "price": "50.00", "currency": "USD", "ticket_tier": "vip",
    } | changes  # fmt: skip


def test_offer_is_made_with_its_tier_and_changed_by_its_slug(
    registration: Registration, vip: Any, member: Any
) -> None:
    TicketTierFactory(event=registration.event, slug="gold")
    made = member.post("/api/v1/offers/", new_offer(registration))
    assert (made.status_code, made.json()["ticket_tier"]) == (201, "vip")
    url = f"/api/v1/offers/{made.json()['id']}/"
    for slug in ("gold", None, "vip"):
        assert member.patch(url, {"ticket_tier": slug}).json()["ticket_tier"] == slug
    assert member.patch(url, {"title": "New"}).json()["ticket_tier"] == "vip"
    assert Offer.objects.get().ticket_tier == vip


@pytest.mark.parametrize(
    "wrong",
    [{"ticket_tier": "elsewhere"}, {"ticket_tier": "nowhere"}, {"offer_type": "SERVICE"}],
    ids=["of another event", "unknown", "not an upgrade"],
)
def test_offer_with_a_tier_that_it_can_not_give_is_refused(
    registration: Registration, vip: Any, member: Any, wrong: dict[str, str]
) -> None:
    TicketTierFactory(slug="elsewhere")
    refused = member.post("/api/v1/offers/", new_offer(registration, **wrong))
    assert refused.status_code == 400
    assert [error["attr"] for error in refused.json()["errors"]] == ["ticket_tier"]
    assert not Offer.objects.exists()

    offer = upgrade_offer(vip)
    refused = member.patch(f"/api/v1/offers/{offer.pk}/", wrong)
    assert refused.status_code == 400
    assert [error["attr"] for error in refused.json()["errors"]] == ["ticket_tier"]
    mug = OfferFactory(event=registration.event)
    assert member.patch(f"/api/v1/offers/{mug.pk}/", {"ticket_tier": "vip"}).status_code == 400
