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
from purchases.bulk import running
from purchases.bulk.models import BulkJob
from purchases.states import Status as PurchaseStatus
from tests.factories import (
    DigitalContentFactory,
    MembershipFactory,
    OfferFactory,
    PurchaseFactory,
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


def act(client: Client, action: str, *chosen: Fulfillment, **answers: Any) -> str:
    """Choose rows, do the action, answer its question, and return the page that one sees then."""
    sent = {"action": action, "_selected_action": [str(row.pk) for row in chosen]}
    answer = client.post(LIST, sent, follow=True)
    if answers and answer.redirect_chain:
        answers.pop("sure", None)
        answer = client.post(answer.redirect_chain[-1][0], answers, follow=True)
        running.run_due(now=timezone.now())
        answer = client.get(answer.redirect_chain[-1][0]) if answer.redirect_chain else answer
    assert answer.status_code == 200
    return answer.content.decode()


def status(fulfillment: Fulfillment) -> str:
    return Fulfillment.objects.get(pk=fulfillment.pk).status


def test_manager_retries_what_failed_and_is_told_of_what_had_not() -> None:
    failed = make_fulfillment(status=Status.FAILED)
    manager = browser_of(member(failed, "manager"))
    event = failed.purchase.event
    sold = PurchaseFactory(offer__event=event, status=PurchaseStatus.PAID)
    done = make_fulfillment(sold, status=Status.FULFILLED)
    text = act(manager, "retry", failed, done, sure=True)
    assert (status(failed), status(done)) == (Status.PENDING, Status.FULFILLED)
    assert "2 of 2, 1 refused" in text
    assert "that is FULFILLED can&#x27;t retry" in text


@pytest.mark.parametrize(
    ("action", "becomes"), [("mark_done", Status.FULFILLED), ("revoke", Status.REVOKED)]
)
def test_manager_overrules_the_worker_with_a_reason(action: str, becomes: str) -> None:
    failed = make_fulfillment(status=Status.FAILED)
    manager = member(failed, "manager")
    asked = act(browser_of(manager), action, failed)
    assert "1 are failed." in asked
    assert "It stays on record with your name." in asked
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
    assert f'value="{action}"' not in text
    assert not BulkJob.objects.exists()


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
