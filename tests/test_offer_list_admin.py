"""Admin's list of offers: what it shows and finds, and what is done from it."""

import html
import uuid
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from fulfillment.bookings.models import ServiceDetails
from fulfillment.digital.models import DigitalContent
from offers import lifecycle
from offers.models import Offer
from purchases.states import Status
from tests.factories import (
    DigitalContentFactory,
    EventFactory,
    MembershipFactory,
    OfferFactory,
    PurchaseFactory,
    UserFactory,
)
from tests.test_permissions import browser_of
from tests.two_organizations import World

pytestmark = pytest.mark.django_db

LIST = reverse("admin:offers_offer_changelist")
STEPS = ("archive", "restore", "pause", "resume")


@pytest.fixture
def event() -> Any:
    return EventFactory(title="Conf")


@pytest.fixture
def manager(event: Any) -> Client:
    return browser_of(MembershipFactory(organization=event.organization, role="manager").user)


def shown(answer: Any) -> str:
    return " ".join(html.unescape(answer.content.decode()).split())


def found(client: Client, **query: str) -> set[str]:
    answer = client.get(LIST, query)
    assert answer.status_code == 200, query
    return {offer.title for offer in answer.context["cl"].result_list}


def act(client: Client, action: str, *offers: Any, **sent: Any) -> Any:
    keys = [str(getattr(offer, "pk", offer)) for offer in offers]
    return client.post(LIST, {"action": action, "_selected_action": keys, **sent}, follow=True)


def told(answer: Any) -> str:
    return " ".join(str(message) for message in answer.context["messages"])


def test_list_says_how_each_sells(manager: Client, event: Any) -> None:
    now = timezone.now()
    mug = OfferFactory(
        event=event, title="Mug", price=Decimal(500), original_price=Decimal(700), currency="JPY",
        expires_at=now + timedelta(days=1), inventory_total=10,
    )  # fmt: skip
    PurchaseFactory(offer=mug, quantity=3, status=Status.PAID)
    PurchaseFactory(offer=mug, quantity=2)
    OfferFactory(event=event, inventory_total=None, starts_at=now + timedelta(days=1))
    text = shown(manager.get(LIST))
    for part in (
        "500 JPY <del>700</del>", "3 sold, 2 on hold, 5 of 10 left", "width:30.0%", "width:20.0%",
        "0 sold, 0 on hold, unlimited", "Scheduled", "On sale", "Conf",
    ):  # fmt: skip
        assert part in text, part


def test_filters_and_search_find_what_they_say(manager: Client, event: Any) -> None:
    past = timezone.now() - timedelta(days=1)
    OfferFactory(event=event, title="On")
    OfferFactory(event=event, title="Off", is_active=False, inventory_total=0)
    OfferFactory(event=event, title="Over", expires_at=past, placement="EMAIL")
    OfferFactory(event=event, title="Gone", inventory_total=0, offer_type="SERVICE")
    OfferFactory(event=event, title="Kept", is_archived=True, inventory_total=None)
    last = OfferFactory(event=event, title="Soon", starts_at=timezone.now() + timedelta(days=1))
    Offer.objects.filter(pk=last.pk).update(stripe_product_id="prod_9")
    for state, title in (
        ("on_sale", "On"), ("paused", "Off"), ("ended", "Over"), ("sold_out", "Gone"),
        ("archived", "Kept"), ("scheduled", "Soon"),
    ):  # fmt: skip
        assert found(manager, state=state) == {title}
    assert found(manager, stock="sold_out") == {"Off", "Gone"}
    assert found(manager, stock="unlimited") == {"Kept"}
    assert found(manager, stock="left") == {"On", "Over", "Soon"}
    assert found(manager, offer_type__exact="SERVICE") == {"Gone"}
    assert found(manager, placement__exact="EMAIL") == {"Over"}
    assert found(manager, state="x") == found(manager, stock="x") == set()
    for sought in ("soon", str(last.pk), "prod_9"):
        assert found(manager, q=sought) == {"Soon"}
    assert len(found(manager, q="conf")) == 6


def test_list_takes_few_queries_however_many_there_are(
    manager: Client, event: Any, django_assert_max_num_queries: Callable[..., Any]
) -> None:
    OfferFactory.create_batch(60, event=event)
    with django_assert_max_num_queries(15):
        assert manager.get(LIST).status_code == 200


@pytest.mark.parametrize("name", STEPS)
def test_action_takes_its_step_with_each(manager: Client, event: Any, name: str) -> None:
    step: lifecycle.Step = getattr(lifecycle, name.upper())
    todo = OfferFactory.create_batch(2, event=event, **{step.field: not step.value})
    done = OfferFactory(event=event, **{step.field: step.value})
    said = told(act(manager, name, *todo, done))
    assert f"2 {step.done}." in said
    assert "1 left as they are" in said
    assert Offer.objects.filter(**{step.field: step.value}).count() == 3


def test_action_tells_each_that_was_refused_with_its_reason(manager: Client, event: Any) -> None:
    over = OfferFactory(event=event, title="Over", is_active=False, expires_at=timezone.now())
    kept = OfferFactory(event=event, title="Kept", is_active=False, is_archived=True)
    said = told(act(manager, "resume", over, kept))
    assert "Over: Its sale has ended: give it a later end first." in said
    assert "Kept: It is archived: restore it first." in said


def test_thousands_are_changed_by_one_request(manager: Client, event: Any) -> None:
    Offer.objects.bulk_create(OfferFactory.build_batch(2_000, event=event))
    one = Offer.objects.first()
    answer = act(manager, "pause", one, select_across="1")
    assert "2,000 paused." in told(answer)
    assert not Offer.objects.filter(is_active=True).exists()
    assert Offer.history.filter(is_active=False).count() == 2_000


def test_copy_of_one_opens_and_copies_of_several_are_told(manager: Client, event: Any) -> None:
    first, second = OfferFactory.create_batch(2, event=event)
    answer = act(manager, "duplicate", first)
    copy = Offer.objects.get(title=f"{first.title} (copy)")
    assert answer.redirect_chain[-1][0] == reverse("admin:offers_offer_change", args=[copy.pk])
    assert "2 copies made" in told(act(manager, "duplicate", first, second))
    assert Offer.objects.count() == 5


def test_copy_takes_along_what_its_buyers_are_told(manager: Client, event: Any) -> None:
    content = DigitalContentFactory(offer__event=event, instructions="Ask for Jo")
    details = ServiceDetails.objects.create(
        offer=OfferFactory(event=event, offer_type=Offer.Type.SERVICE), location="Room 5"
    )
    act(manager, "duplicate", content.offer, details.offer)
    copied = DigitalContent.objects.exclude(pk=content.pk).get()
    assert (copied.url, copied.instructions) == (content.url, "Ask for Jo")
    assert not copied.file
    assert ServiceDetails.objects.exclude(pk=details.pk).get().location == "Room 5"


@pytest.mark.parametrize("key", ["x", "", "1", "' OR 1", "%00", "\x00"])
def test_action_on_what_is_no_id_is_told(manager: Client, event: Any, key: str) -> None:
    OfferFactory(event=event)
    assert act(manager, "archive", key).status_code in (200, 400)
    assert not Offer.objects.filter(is_archived=True).exists()


# -- On the page of one ---------------------------------------------------------------------------


def button(offer: Any, name: str) -> str:
    return reverse(f"admin:offers_offer_{name}_one", args=[getattr(offer, "pk", offer)])


def test_page_has_the_buttons_that_do_something(manager: Client, event: Any) -> None:
    for state, names in (
        ({}, {"pause", "archive", "duplicate"}),
        ({"is_active": False}, {"resume", "archive", "duplicate"}),
        ({"is_archived": True}, {"restore", "duplicate"}),
    ):
        offer = OfferFactory(event=event, **state)
        text = manager.get(reverse("admin:offers_offer_change", args=[offer.pk])).content.decode()
        shown = {name for name in (*STEPS, "duplicate") if button(offer, name) in text}
        assert shown == names, state


@pytest.mark.parametrize("name", STEPS)
def test_button_asks_before_it_does(manager: Client, event: Any, name: str) -> None:
    step: lifecycle.Step = getattr(lifecycle, name.upper())
    offer = OfferFactory(event=event, **{step.field: not step.value})
    assert manager.get(button(offer, name)).status_code == 200
    offer.refresh_from_db()
    assert not step.is_done(offer)
    assert step.done in told(manager.post(button(offer, name), follow=True))
    offer.refresh_from_db()
    assert step.is_done(offer)


def test_button_tells_what_is_refused(manager: Client, event: Any) -> None:
    offer = OfferFactory(event=event, is_active=False, expires_at=timezone.now())
    assert "later end" in told(manager.post(button(offer, "resume"), follow=True))


def test_buttons_copy_opens(manager: Client, event: Any) -> None:
    offer = OfferFactory(event=event)
    assert manager.get(button(offer, "duplicate")).status_code == 200
    assert Offer.objects.count() == 1
    manager.post(button(offer, "duplicate"))
    assert Offer.objects.count() == 2


# -- Who may --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*STEPS, "duplicate"])
def test_only_owners_and_managers_of_the_organization_act(name: str) -> None:
    world = World()
    offer = world.home.offer
    if name in ("restore", "resume"):
        field = "is_archived" if name == "restore" else "is_active"
        Offer.objects.filter(pk=offer.pk).update(**{field: name == "restore"})

    def state() -> Any:
        columns = ("pk", "is_active", "is_archived")
        return sorted(Offer.objects.values_list(*columns))

    before = state()
    for who in ("anonymous", "buyer", "support", "rival", "ticked"):
        client = browser_of(world.people[who])
        act(client, name, offer)
        client.post(button(offer, name))
        assert state() == before, who
    for who in ("support", "rival"):
        assert browser_of(world[who]).get(button(offer, name)).status_code in (403, 404)
    client = browser_of(world["support"])
    text = client.get(reverse("admin:offers_offer_change", args=[offer.pk])).content.decode()
    assert button(offer, name) not in text
    assert 'value="archive"' not in client.get(LIST).content.decode()
    act(browser_of(world["manager"]), name, offer)
    assert state() != before


@pytest.mark.parametrize("key", ["x", str(uuid.UUID(int=1)), "_27"])
def test_button_of_what_is_no_offer_is_not_found(key: str) -> None:
    client = browser_of(UserFactory(is_staff=True, is_superuser=True))
    assert client.post(button(key, "archive")).status_code == 404


def test_role_of_another_organization_is_none_here() -> None:
    """An owner of one organization who supports another one changes nothing there."""
    world = World()
    MembershipFactory(organization=world.away.organization, user=world["owner"], role="support")
    said = told(act(browser_of(world["owner"]), "archive", world.away.offer, world.home.offer))
    assert "1 left as they are: this takes a manager's role." in said
    assert list(Offer.objects.filter(is_archived=True)) == [world.home.offer]
