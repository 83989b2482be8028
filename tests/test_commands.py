"""The management commands, as staff run them."""

import io
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from waffle.models import Switch

from offers.models import Offer
from purchases.models import Purchase, StripeEvent
from purchases.states import Status
from tests.conftest import buy, counters, receive
from tests.factories import OfferFactory, PurchaseFactory, UserFactory

pytestmark = pytest.mark.django_db(transaction=True)


def run(*command: str) -> str:
    out = io.StringIO()
    call_command(*command, stdout=out)
    return out.getvalue()


@pytest.fixture
def overdue(sandbox: Any, client_of: Any) -> Purchase:
    """A hold of two units whose time is up."""
    purchase = buy(client_of(UserFactory()), OfferFactory(), 2).json()
    past = timezone.now() - timedelta(minutes=1)
    Purchase.objects.update(reserved_until=past, created_at=past - timedelta(minutes=15))
    return Purchase.objects.get(pk=purchase["id"])


def test_release_inventory_ends_overdue_holds_and_says_so(overdue: Purchase) -> None:
    said = run("release_inventory").splitlines()
    assert said[0] == f"{overdue.pk} 2 x {overdue.offer_title}: released (expired)"
    assert said[1] == "total: 1 holds released (2 units), 0 paid after all, 0 still held"
    assert counters(overdue.offer) == (0, 0)


def test_release_inventory_records_what_was_paid_meanwhile(sandbox: Any, overdue: Purchase) -> None:
    sandbox.act(overdue.checkout_session_id, "pay")
    assert "not released: it is paid" in run("release_inventory")
    assert counters(overdue.offer) == (0, 2)


def test_release_inventory_only_lists_in_a_dry_run(sandbox: Any, overdue: Purchase) -> None:
    before = len(sandbox.process.get("requests")["data"])
    assert "would be ended" in run("release_inventory", "--dry-run")
    assert counters(overdue.offer) == (2, 0)
    assert len(sandbox.process.get("requests")["data"]) == before


def test_release_inventory_leaves_holds_that_have_time(sandbox: Any, client_of: Any) -> None:
    offer = OfferFactory()
    buy(client_of(UserFactory()), offer)
    assert run("release_inventory").startswith("total: 0 holds")
    assert counters(offer) == (1, 0)
    run("release_inventory", "--all")
    assert counters(offer) == (0, 0)
    assert Purchase.objects.get().release_reason == "staff"


@pytest.mark.parametrize("option", ["offer", "event", "purchase", "older-than"])
def test_release_inventory_can_be_narrowed(overdue: Purchase, option: str) -> None:
    other = PurchaseFactory()
    mine, others = {
        "offer": (overdue.offer_id, other.offer_id),
        "event": (overdue.event.slug, other.event.slug),
        "purchase": (overdue.pk, other.pk),
        "older-than": (10, 60),
    }[option]
    assert run("release_inventory", f"--{option}", str(others)).startswith("total: 0 holds")
    assert "1 holds released" in run("release_inventory", f"--{option}", str(mine))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--offer", "00000000-0000-4000-8000-000000000000"),
        ("--event", "elsewhere"),
        ("--purchase", "00000000-0000-4000-8000-000000000000"),
        ("--older-than", "nan"),
        ("--older-than", "-5"),
        ("--older-than", "1e400"),
    ],
    ids=" ".join,
)
def test_release_inventory_refuses_what_makes_no_sense(arguments: tuple[str, str]) -> None:
    with pytest.raises(CommandError, match="There is no|no number of minutes"):
        run("release_inventory", *arguments)


def test_release_inventory_fails_when_stripe_can_not_be_asked(
    sandbox: Any, overdue: Purchase
) -> None:
    sandbox.faults(error_rate=1.0, error_status=500)
    with pytest.raises(CommandError, match="1 holds could not be ended"):
        run("release_inventory")
    assert counters(overdue.offer) == (2, 0)


def test_check_inventory_is_content_when_counters_equal_purchases() -> None:
    offer = OfferFactory()
    for status in Status:
        PurchaseFactory(offer=offer, status=status)
    assert "equal" in run("check_inventory")


def test_check_inventory_fails_on_a_difference_and_names_the_offer() -> None:
    purchase = PurchaseFactory(status=Status.PAID)
    Offer.objects.filter(pk=purchase.offer_id).update(inventory_sold=3)
    out = io.StringIO()
    with pytest.raises(CommandError, match="1 offers differ"):
        call_command("check_inventory", stdout=out)
    assert "sold 3, purchases paid 1" in out.getvalue()


def test_replay_events_processes_what_failed(sandbox: Any, overdue: Purchase) -> None:
    sandbox.act(overdue.checkout_session_id, "pay")
    event = sandbox.events("checkout.session.completed")[0]
    event["data"]["object"]["amount_total"] = 1
    receive(event)
    assert StripeEvent.objects.get().state == StripeEvent.State.FAILED
    with pytest.raises(CommandError, match="1 events still fail"):
        run("replay_events", "--failed")

    event["data"]["object"]["amount_total"] = 10000
    StripeEvent.objects.update(payload=event)
    assert "failed" in run("replay_events", "--failed", "--dry-run")
    assert "processed" in run("replay_events", event["id"])
    assert counters(overdue.offer) == (0, 2)
    assert "processed" in run("replay_events", event["id"])  # and again: nothing happens
    assert counters(overdue.offer) == (0, 2)


def test_replay_events_says_what_it_wants() -> None:
    with pytest.raises(CommandError, match="Name the events"):
        run("replay_events")
    with pytest.raises(CommandError, match="Not stored here: evt_x"):
        run("replay_events", "evt_x")


def test_expire_offers_deactivates_what_has_ended() -> None:
    ended = OfferFactory(expires_at=timezone.now() - timedelta(minutes=1))
    OfferFactory(expires_at=timezone.now() + timedelta(minutes=1))
    OfferFactory()
    assert run("expire_offers", "--dry-run") == "1 offers would be deactivated.\n"
    assert run("expire_offers") == "1 offers deactivated.\n"
    assert list(Offer.objects.filter(is_active=False)) == [ended]


def test_waffle_switch_only_says_what_it_would_set_in_a_dry_run() -> None:
    Switch.objects.get_or_create(name="purchases", defaults={"active": True})
    said = run("waffle_switch", "purchases", "off", "--dry-run")
    assert said == "purchases would be off.\n"
    assert run("waffle_switch", "new", "on", "--create", "--dry-run").endswith("new would be on.\n")
    with pytest.raises(CommandError, match="does not exist"):
        run("waffle_switch", "new", "on", "--dry-run")
    assert dict(Switch.objects.values_list("name", "active")) == {"purchases": True}
    assert run("waffle_switch", "purchases", "off") == "purchases is off.\n"
    assert not Switch.objects.get().active
    assert run("waffle_switch", "--list") == "Switches:\npurchases: off\n\n"


def test_seed_demo_makes_the_demo_once_and_more_on_request(client_of: Any) -> None:
    assert "loaded" in run("seed_demo")
    assert "users already" in run("seed_demo", "--offers", "3", "--purchases", "7")
    types = Offer.objects.filter(event__slug="demo-conf", title__startswith="Bulk")
    assert types.count() == 4
    assert Purchase.objects.count() == 7
    assert "equal" in run("check_inventory")
    token = client_of().post(
        "/api/v1/auth/token/", {"username": "attendee60", "password": "attendee60"}
    )
    assert token.status_code == 200
    with pytest.raises(CommandError, match="Ask for 0 to 1,000,000"):
        run("seed_demo", "--offers", "1000001")
