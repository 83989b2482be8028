"""Upgrades in admin; and what staff do there that an upgrade waits for, or runs into."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from fulfillment.models import Fulfillment
from fulfillment.states import Status
from fulfillment.tickets.models import TicketUpgrade
from offers.models import Membership, Offer, Registration, TicketTier
from tests.conftest import deliver_now
from tests.factories import (
    EventSessionFactory,
    MembershipFactory,
    PurchaseFactory,
    RegistrationFactory,
    TicketTierFactory,
    UserFactory,
)
from tests.test_admin_pages import opened, page, save
from tests.test_admin_permissions import filled
from tests.ticket_upgrades import paid_upgrade, tier_of, upgrade, upgrade_offer

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def registration() -> Registration:
    return RegistrationFactory(ticket_tier__title="Standard", ticket_tier__slug="standard")


@pytest.fixture
def vip(registration: Registration) -> TicketTier:
    return TicketTierFactory(event=registration.event, title="VIP", slug="vip")


def logged_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def manager(registration: Registration) -> Client:
    member = MembershipFactory(
        organization=registration.event.organization,
        user=UserFactory(username="manager", is_staff=True),
        role=Membership.Role.MANAGER,
    )
    return logged_in(member.user)


@pytest.fixture
def superuser() -> Client:
    return logged_in(UserFactory(is_staff=True, is_superuser=True))


# -- What a failed upgrade waits for --------------------------------------------------------------


def test_tier_chosen_for_the_offer_has_its_failed_upgrades_tried_again(
    manager: Client, registration: Registration, vip: TicketTier
) -> None:
    offer = upgrade_offer(None, event=registration.event)
    purchase = PurchaseFactory(offer=offer, user=registration.user, status="paid")
    other = paid_upgrade(RegistrationFactory(), TicketTierFactory())
    for each in (purchase, other):
        assert deliver_now(each.pk).status == Status.FAILED

    assert save(manager, offer, opened(manager, offer) | {"title": "New"}) == {}
    assert Fulfillment.objects.get(purchase=purchase).due_at > timezone.now()
    assert save(manager, offer, opened(manager, offer) | {"ticket_tier": vip.pk}) == {}

    assert Fulfillment.objects.get(purchase=purchase).due_at <= timezone.now()
    assert Fulfillment.objects.get(purchase=other).due_at > timezone.now()
    assert deliver_now(purchase.pk).status == Status.FULFILLED
    assert tier_of(registration) == "vip"


def test_tier_that_the_offer_can_not_give_is_an_error_beside_the_field(
    superuser: Client, registration: Registration
) -> None:
    offer = upgrade_offer(None, event=registration.event)
    errors = save(superuser, offer, opened(superuser, offer) | {"ticket_tier": elsewhere().pk})
    assert errors == {"ticket_tier": ["This tier belongs to another event."]}


def elsewhere() -> TicketTier:
    tier: TicketTier = TicketTierFactory()
    return tier


def test_tiers_are_looked_for_by_typing(manager: Client, vip: TicketTier) -> None:
    elsewhere()
    query = {"app_label": "offers", "model_name": "offer", "field_name": "ticket_tier", "term": ""}
    found = manager.get("/admin/autocomplete/", query).json()["results"]
    assert sorted(each["id"] for each in found) == sorted(
        str(pk) for pk in vip.event.ticket_tiers.values_list("pk", flat=True)
    )


def test_registration_that_is_added_has_its_attendees_upgrade_tried_again(
    manager: Client, registration: Registration, vip: TicketTier
) -> None:
    late = UserFactory(username="late")
    purchase = PurchaseFactory(offer=upgrade_offer(vip), user=late, status="paid")
    waiting = PurchaseFactory(offer=upgrade_offer(vip), status="paid")
    for each in (purchase, waiting):
        assert deliver_now(each.pk).status == Status.FAILED

    sent = {
        "event": registration.event_id, "user": "late", "ticket_tier": registration.ticket_tier_id,
    }  # fmt: skip
    form = filled(manager.get(page(Registration, "add"))) | sent
    assert manager.post(page(Registration, "add"), form).status_code == 302

    retried = Fulfillment.objects.get(purchase=purchase).transitions.last()
    assert (retried.name, retried.source, retried.actor.username) == ("retry", "admin", "manager")
    assert deliver_now(purchase.pk).status == Status.FULFILLED
    assert tier_of(late.registrations.get()) == "vip"
    assert Fulfillment.objects.get(purchase=waiting).status == Status.FAILED


# -- The form of a registration that is upgraded meanwhile ----------------------------------------


def test_form_opened_before_an_upgrade_writes_no_old_tier_back(
    manager: Client, registration: Registration, vip: TicketTier
) -> None:
    session = EventSessionFactory(event=registration.event)
    address = page(Registration, "change", registration.pk)
    form = filled(manager.get(address))
    upgrade(registration, vip)

    assert manager.post(address, form | {"sessions": [session.pk]}).status_code == 302

    assert tier_of(registration) == "vip"
    assert registration.sessions.get() == session


def test_tier_changed_by_hand_and_by_an_upgrade_at_once_is_asked_about(
    manager: Client, registration: Registration, vip: TicketTier
) -> None:
    gold = TicketTierFactory(event=registration.event, slug="gold")
    address = page(Registration, "change", registration.pk)
    form = filled(manager.get(address))
    upgrade(registration, vip)

    answer = manager.post(address, form | {"ticket_tier": gold.pk})

    assert answer.context["adminform"].form.errors == {
        "ticket_tier": ["Meanwhile this became VIP: load the page again."]
    }
    assert tier_of(registration) == "vip"
    again = filled(manager.get(address)) | {"ticket_tier": gold.pk}
    assert manager.post(address, again).status_code == 302
    assert tier_of(registration) == "gold"


# -- Upgrades, to look at -------------------------------------------------------------------------


def test_upgrades_are_listed_found_by_their_code_and_shown_with_the_registration(
    manager: Client, registration: Registration, vip: TicketTier
) -> None:
    upgraded = upgrade(registration, vip)
    foreign = RegistrationFactory()
    other = upgrade(foreign, TicketTierFactory(event=foreign.event))
    listed = manager.get(page(TicketUpgrade, "changelist")).content.decode()
    assert upgraded.code in listed
    assert other.code not in listed
    for sought, found in ((upgraded.code, True), (registration.user.username, True), ("x", False)):
        answer = manager.get(page(TicketUpgrade, "changelist"), {"q": sought})
        assert (upgraded.code in answer.content.decode()) == found
    shown = manager.get(page(Registration, "change", registration.pk)).content.decode()
    assert upgraded.code in shown
    address = page(TicketUpgrade, "change", upgraded.pk)
    assert manager.get(address).status_code == 200
    assert manager.post(address, {"code": "x"}).status_code == 403


def test_lists_take_as_many_queries_for_many_upgrades(
    superuser: Client,
    registration: Registration,
    vip: TicketTier,
    django_assert_max_num_queries: Any,
) -> None:
    for _ in range(6):
        upgrade(registration, vip)
    with django_assert_max_num_queries(10):
        superuser.get(page(TicketUpgrade, "changelist"))


def test_what_upgrades_name_can_not_be_deleted_and_admin_says_why(
    superuser: Client, registration: Registration, vip: TicketTier
) -> None:
    standard = registration.ticket_tier
    upgraded = upgrade(registration, vip)
    Offer.objects.update(ticket_tier=None)  # which would keep its tier as well
    for thing in (vip, standard, registration):
        address = page(type(thing), "delete", thing.pk)
        asked = superuser.get(address).content.decode()
        assert "would require deleting the following protected related objects" in asked
        assert str(upgraded) in asked
        assert superuser.post(address, {"post": "yes"}).status_code == 200
        assert type(thing).objects.filter(pk=thing.pk).exists()


def test_tier_of_an_offer_can_not_be_deleted_and_admin_says_why(
    superuser: Client, vip: TicketTier
) -> None:
    offer = upgrade_offer(vip, title="Better ticket")
    event = page(type(vip.event), "change", vip.event.pk)
    form = filled(superuser.get(event))
    [row] = [
        name.removesuffix("-id")
        for name, value in form.items()
        if name.startswith("ticket_tiers-") and name.endswith("-id") and value == str(vip.pk)
    ]
    answer = superuser.post(event, form | {f"{row}-DELETE": "on"})
    assert answer.status_code == 200
    assert "Better ticket" in answer.content.decode()
    assert "protected related objects" in answer.content.decode()
    offer.refresh_from_db()
    assert offer.ticket_tier == vip
