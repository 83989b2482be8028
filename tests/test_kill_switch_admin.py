"""The kill switch as a button: who may, what every page says, and that it is the same switch."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.core.cache import caches
from django.core.management import call_command
from django.test import Client
from django.urls import reverse
from waffle.models import Switch

from offers import catalog
from tests.factories import EventFactory, MembershipFactory, OfferFactory, UserFactory
from tests.test_permissions import browser_of

pytestmark = pytest.mark.django_db

PAGE = reverse("admin:kill_switch")
ANY_PAGE = reverse("admin:password_change")


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    """Waffle forgets what it remembers after the commit, which a test never sees."""
    caches["switches"].clear()
    yield
    caches["switches"].clear()


@pytest.fixture
def root() -> Client:
    return browser_of(UserFactory(username="root", is_superuser=True))


@pytest.fixture
def member() -> Client:
    return browser_of(MembershipFactory().user)


def turn(root: Client, sales: str, reason: str = "Stripe is down") -> Any:
    answer = root.post(PAGE, {"sales": sales, "reason": reason})
    caches["switches"].clear()
    return answer


def test_sales_are_stopped_and_started_with_a_reason_on_record(root: Client) -> None:
    assert "Stop all sales now" in root.get(PAGE).content.decode()
    assert turn(root, "stop").status_code == 302
    assert not catalog.is_selling()
    assert "Start sales again" in root.get(PAGE).content.decode()
    turn(root, "start", "It is back")
    assert catalog.is_selling()
    entries = LogEntry.objects.order_by("pk").values_list("user__username", "change_message")
    assert list(entries) == [
        ("root", "Stopped all sales: Stripe is down"),
        ("root", "Started sales again: It is back"),
    ]


def test_reason_is_asked_for(root: Client) -> None:
    assert "This field is required" in turn(root, "stop", " ").content.decode()
    assert catalog.is_selling()


def test_form_that_was_open_for_long_does_what_it_said(root: Client) -> None:
    """Two superusers at once: the second's Stop doesn't start sales again."""
    turn(root, "stop")
    turn(root, "stop", "Me too")
    assert not catalog.is_selling()


@pytest.mark.parametrize(("who", "status"), [("member", 403), ("staff", 403), ("attendee", 302)])
def test_nobody_else_may(who: str, status: int, member: Client) -> None:
    people = {
        "member": member,
        "staff": browser_of(UserFactory(is_staff=True)),
        "attendee": browser_of(UserFactory()),
    }
    assert people[who].get(PAGE).status_code == status
    assert turn(people[who], "stop").status_code == status
    assert not Switch.objects.filter(name=catalog.SWITCH, active=False).exists()


def test_every_page_says_so_while_it_is_off(root: Client, member: Client) -> None:
    for client in (root, member):
        assert "Sales are stopped" not in client.get(ANY_PAGE).content.decode()
    turn(root, "stop", "Stripe <is> down")
    for client, may in ((root, True), (member, False)):
        for url in (ANY_PAGE, reverse("admin:offers_offer_changelist")):
            text = client.get(url).content.decode()
            assert "Sales are stopped" in text
            assert "UTC, root: Stripe &lt;is&gt; down" in text
            assert (f'href="{PAGE}">Start' in text) == may


def test_command_is_seen_by_the_pages(root: Client) -> None:
    call_command("waffle_switch", catalog.SWITCH, "off", create=True)
    caches["switches"].clear()
    assert "Sales are stopped" in root.get(ANY_PAGE).content.decode()
    turn(root, "start")
    assert catalog.is_selling()


def test_page_costs_no_query_more_than_the_banner(
    member: Client, django_assert_num_queries: Callable[..., Any]
) -> None:
    member.get(ANY_PAGE)
    with django_assert_num_queries(3):  # session, account, memberships
        member.get(ANY_PAGE)
    Switch.objects.update_or_create(name=catalog.SWITCH, defaults={"active": False})
    caches["switches"].clear()
    member.get(ANY_PAGE)
    with django_assert_num_queries(4):
        member.get(ANY_PAGE)


def test_shop_says_that_sales_are_paused(root: Client) -> None:
    offer = OfferFactory(event=EventFactory(is_public=True))
    url = reverse("offers-page", args=[offer.event.slug])
    buyer = browser_of(UserFactory())
    assert "<button>Buy" in buyer.get(url).content.decode()
    turn(root, "stop")
    text = buyer.get(url).content.decode()
    assert "Sales are paused" in text
    assert "<button>Buy" not in text
