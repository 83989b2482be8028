"""What staff do about fulfilments in admin: the same functions, with a reason where it matters."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from fulfillment import delivery
from fulfillment.models import Fulfillment
from fulfillment.states import Status
from offers.models import Offer
from tests.factories import (
    DigitalContentFactory,
    MembershipFactory,
    OfferFactory,
    TicketTierFactory,
    TimeSlotFactory,
    make_fulfillment,
)
from tests.test_admin_permissions import filled
from tests.test_permissions import browser_of

pytestmark = pytest.mark.django_db

LIST = reverse("admin:fulfillment_fulfillment_changelist")


def member(fulfillment: Fulfillment, role: str) -> User:
    organization = fulfillment.purchase.event.organization
    user: User = MembershipFactory(organization=organization, user__is_staff=True, role=role).user
    return user


def act(client: Client, action: str, *chosen: Fulfillment, **more: Any) -> str:
    """Choose rows, do the action, and return the page that one sees then."""
    sent = {"action": action, "_selected_action": [str(row.pk) for row in chosen], **more}
    answer = client.post(LIST, sent, follow=True)
    assert answer.status_code == 200
    return answer.content.decode()


def status(fulfillment: Fulfillment) -> str:
    return Fulfillment.objects.get(pk=fulfillment.pk).status


def test_manager_retries_what_failed_and_is_told_of_what_had_not() -> None:
    failed = make_fulfillment(status=Status.FAILED)
    manager = browser_of(member(failed, "manager"))
    done = make_fulfillment(status=Status.FULFILLED)
    MembershipFactory(
        organization=done.purchase.event.organization,
        user=User.objects.get(memberships__role="manager"),
        role="owner",
    )
    text = act(manager, "retry", failed, done)
    assert (status(failed), status(done)) == (Status.PENDING, Status.FULFILLED)
    assert "1 will be tried again now." in text
    assert "that is FULFILLED can&#x27;t retry" in text


@pytest.mark.parametrize(
    ("action", "becomes"), [("mark_done", Status.FULFILLED), ("revoke", Status.REVOKED)]
)
def test_manager_overrules_the_worker_with_a_reason(action: str, becomes: str) -> None:
    failed = make_fulfillment(status=Status.FAILED)
    manager = member(failed, "manager")
    asked = act(browser_of(manager), action, failed)
    assert "Why?" in asked
    assert str(failed.purchase.user) in asked
    assert status(failed) == Status.FAILED

    assert "This field is required" in act(browser_of(manager), action, failed, reason="  ")
    assert status(failed) == Status.FAILED

    act(browser_of(manager), action, failed, reason="Given to her at the desk.")
    assert status(failed) == becomes
    line = failed.transitions.last()
    assert (line.actor, line.source, line.reason) == (
        manager, "admin", "Given to her at the desk.",
    )  # fmt: skip


@pytest.mark.parametrize("action", ["retry", "mark_done", "revoke"])
def test_support_may_look_but_not_overrule(action: str) -> None:
    failed = make_fulfillment(status=Status.FAILED)
    text = act(browser_of(member(failed, "support")), action, failed, reason="please")
    assert status(failed) == Status.FAILED
    assert "takes a manager" in text


@pytest.mark.parametrize("action", ["retry", "mark_done", "revoke"])
def test_another_organizations_owner_reaches_nothing(action: str) -> None:
    failed = make_fulfillment(status=Status.FAILED)
    rival = MembershipFactory(user__is_staff=True, role="owner").user
    text = act(browser_of(rival), action, failed, reason="please")
    assert status(failed) == Status.FAILED
    assert failed.purchase.offer_title not in text


def test_organizer_is_told_that_an_offer_on_sale_gives_its_buyers_nothing_yet() -> None:
    offer = OfferFactory(offer_type=Offer.Type.EXCLUSIVE_CONTENT)
    owner = browser_of(
        MembershipFactory(organization=offer.event.organization, user__is_staff=True).user
    )
    url = reverse("admin:offers_offer_change", args=[offer.pk])
    sent = filled(owner.get(url))
    assert (
        "It is on sale, but there is no file" in owner.post(url, sent, follow=True).content.decode()
    )
    sent["digital_content-0-url"] = "https://content.example/talks"
    assert "It is on sale, but" not in owner.post(url, sent, follow=True).content.decode()


@pytest.mark.parametrize("offer_type", Offer.Type.values)
def test_what_is_missing_is_what_a_delivery_would_miss(offer_type: str) -> None:
    tier = TicketTierFactory()
    offer = OfferFactory(offer_type=offer_type, event=tier.event)
    assert (delivery.missing(offer, now=timezone.now()) is None) == (offer_type == "MERCHANDISE")
    match offer_type:
        case "TICKET_UPGRADE":
            offer.ticket_tier = tier
        case "EXCLUSIVE_CONTENT":
            DigitalContentFactory(offer=offer, codes=1)
        case "SERVICE":
            TimeSlotFactory(offer=offer)
    assert delivery.missing(offer, now=timezone.now()) is None
