"""Pages of the back-office that were open while a colleague, or the system, changed what they show.

Each test opens a page, has something else happen, and sends what a browser would.
"""

from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from fulfillment.bookings import following
from fulfillment.bookings.admin import ON_AN_OFFERS_PAGE
from fulfillment.bookings.models import TimeSlot
from fulfillment.digital.models import DigitalContent
from offers.models import Event, Membership, Offer
from purchases.models import WebhookEndpoint
from tests.booked_services import Service, booking_of, told
from tests.digital_content import content_offer, delivered, fill_pool
from tests.factories import MembershipFactory, OfferFactory, UserFactory
from tests.test_admin_permissions import filled

pytestmark = pytest.mark.django_db


def manager(offer: Offer) -> Client:
    user = UserFactory(is_staff=True)
    MembershipFactory(
        organization=offer.event.organization, user=user, role=Membership.Role.MANAGER
    )
    client = Client()
    client.force_login(user)
    return client


def page_of(thing: Any) -> str:
    return reverse(f"admin:{thing._meta.label_lower.replace('.', '_')}_change", args=[thing.pk])


def refusals(answer: Any) -> list[str]:
    """What the page says beside the fields; nothing if it was saved."""
    if answer.status_code == 302:
        return []
    forms = [answer.context["adminform"].form]
    for inline in answer.context["inline_admin_formsets"]:
        forms += inline.formset.forms
    return [said for form in forms for beside in form.errors.values() for said in beside]


def split(name: str, at: Any) -> dict[str, str]:
    return {f"{name}_0": f"{at:%Y-%m-%d}", f"{name}_1": f"{at:%H:%M:%S}"}


# -- Content --------------------------------------------------------------------------------------


@pytest.fixture
def content() -> DigitalContent:
    return DigitalContent.objects.create(
        offer=content_offer(), url="https://content.example/x", instructions=" One\nTwo\n"
    )


@pytest.mark.parametrize("typed", [{}, {"digital_content-0-instructions": "New words"}])
def test_codes_imported_while_the_offers_page_was_open_are_given(
    content: DigitalContent, typed: dict[str, str]
) -> None:
    client, page = manager(content.offer), page_of(content.offer)
    sent = filled(client.get(page))
    added = fill_pool(content.offer, 5)
    assert refusals(client.post(page, sent | typed)) == []
    content.refresh_from_db()
    assert content.gives_access_codes
    assert content.instructions == typed.get("digital_content-0-instructions", " One\nTwo\n")
    assert delivered(content.offer).access_codes.get().code == added[0]


def test_text_that_a_colleague_changed_too_is_written_over_only_by_who_has_read_it(
    content: DigitalContent,
) -> None:
    client, page = manager(content.offer), page_of(content.offer)
    sent = filled(client.get(page))
    DigitalContent.objects.update(instructions="Theirs", url="https://content.example/y")
    answer = client.post(page, sent | {"digital_content-0-instructions": "Mine"})
    assert refusals(answer) == [
        "Meanwhile this became: Theirs. If you save again, what you see here is what counts."
    ]
    content.refresh_from_db()
    assert content.instructions == "Theirs"
    again = filled(answer)
    assert again["digital_content-0-instructions"] == "Mine"
    assert refusals(client.post(page, again)) == []
    content.refresh_from_db()
    assert (content.instructions, content.url) == ("Mine", "https://content.example/y")


def test_lines_that_a_browser_ends_in_its_own_way_are_no_change(content: DigitalContent) -> None:
    client, page = manager(content.offer), page_of(content.offer)
    sent = filled(client.get(page))
    shown = "initial-digital_content-0-instructions"
    sent[shown] = sent[shown].replace("\n", "\r\n")
    sent["digital_content-0-instructions"] = "New words"
    assert refusals(client.post(page, sent)) == []


# -- An event -------------------------------------------------------------------------------------


def test_event_that_was_made_private_stays_so_when_a_word_of_it_is_mended() -> None:
    event = OfferFactory().event
    client, page = manager(event.offers.get()), page_of(event)
    sent = filled(client.get(page))
    Event.objects.update(is_public=False)
    assert refusals(client.post(page, sent | {"title": "Mended"})) == []
    event.refresh_from_db()
    assert (event.title, event.is_public) == ("Mended", False)


# -- Services -------------------------------------------------------------------------------------


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.mark.parametrize("whose", ["the offer's page", "the slot's own page"])
@pytest.mark.parametrize(
    "change",
    [
        {"is_called_off": True},
        {"starts_at": timedelta(hours=3), "ends_at": timedelta(hours=3)},
        {"capacity": 9},
    ],
    ids=["called off", "moved", "enlarged"],
)
def test_slot_stays_as_it_was_made_while_a_page_was_open(
    service: Service, change: dict[str, Any], whose: str
) -> None:
    slot = service.slot()
    service.pick(service.sold(), slot)
    client = manager(service.offer)
    page = page_of(service.offer if whose == "the offer's page" else slot)
    sent = filled(client.get(page))
    for name, value in change.items():
        by = isinstance(value, timedelta)
        setattr(slot, name, getattr(slot, name) + value if by else value)
    slot.save()
    assert refusals(client.post(page, sent)) == []
    now = TimeSlot.objects.get()
    for name in ("starts_at", "ends_at", "capacity", "is_called_off"):
        assert getattr(now, name) == getattr(slot, name)


def test_slot_that_was_called_off_meanwhile_gets_more_seats_and_stays_closed(
    service: Service,
) -> None:
    service.slot()
    client, page = manager(service.offer), page_of(service.offer)
    sent = filled(client.get(page))
    TimeSlot.objects.update(is_called_off=True)
    assert refusals(client.post(page, sent | {"time_slots-0-capacity": "4"})) == []
    assert TimeSlot.objects.values_list("capacity", "is_called_off").get() == (4, True)


def test_slot_that_two_move_goes_where_the_one_wants_who_has_read_of_the_other(
    service: Service,
) -> None:
    slot = service.slot()
    client, page = manager(service.offer), page_of(service.offer)
    sent = filled(client.get(page))
    theirs, mine = slot.ends_at - timedelta(minutes=9), slot.ends_at + timedelta(minutes=9)
    TimeSlot.objects.update(ends_at=theirs)
    answer = client.post(page, sent | split("time_slots-0-ends_at", mine))
    assert len(refusals(answer)) == 1
    assert f"Meanwhile this became: {theirs:%Y-%m-%d %H:%M:%S} UTC." in refusals(answer)[0]
    assert TimeSlot.objects.get().ends_at == theirs
    assert refusals(client.post(page, filled(answer))) == []
    assert TimeSlot.objects.get().ends_at == mine


def test_time_that_was_typed_survives_a_refusal_of_something_else(service: Service) -> None:
    slot = service.slot()
    client, page = manager(service.offer), page_of(service.offer)
    mine = slot.ends_at + timedelta(minutes=9)
    sent = filled(client.get(page)) | split("time_slots-0-ends_at", mine)
    answer = client.post(page, sent | {"title": ""})
    assert refusals(answer) != []
    assert refusals(client.post(page, filled(answer) | {"title": "A title"})) == []
    assert TimeSlot.objects.get().ends_at == mine


def test_place_that_a_colleague_changed_stays_and_nobody_is_told_twice(service: Service) -> None:
    purchase = service.sold()
    service.pick(purchase, service.slot())
    client, page = manager(service.offer), page_of(service.offer)
    sent = filled(client.get(page))
    other = filled(manager(service.offer).get(page)) | {"service_details-0-location": "Room 9"}
    assert refusals(client.post(page, other)) == []
    following.follow(now=timezone.now())
    before = told(purchase)
    assert refusals(client.post(page, sent)) == []
    following.follow(now=timezone.now())
    assert (booking_of(purchase).location, told(purchase)) == ("Room 9", before)


def test_page_of_an_offer_with_many_slots_has_fewer_fields_than_django_takes(
    service: Service,
) -> None:
    for number in range(ON_AN_OFFERS_PAGE):
        service.slot(hours=48 + number)
    sent = filled(manager(service.offer).get(page_of(service.offer)))
    # Each can be called off or deleted, and some may be added by hand.
    ticked, added = 2 * ON_AN_OFFERS_PAGE, 10 * 7
    limit = settings.DATA_UPLOAD_MAX_NUMBER_FIELDS
    assert len(sent) + ticked + added < limit


# -- Endpoints ------------------------------------------------------------------------------------


@pytest.fixture
def endpoint() -> WebhookEndpoint:
    return WebhookEndpoint.objects.create(
        organization=OfferFactory().event.organization, url="https://example.com/x"
    )


def owner(endpoint: WebhookEndpoint) -> Client:
    member = MembershipFactory(organization=endpoint.organization)
    member.user.is_staff = True
    member.user.save()
    client = Client()
    client.force_login(member.user)
    return client


@pytest.mark.parametrize("typed", [{}, {"description": "Ours"}])
def test_endpoint_that_wants_nothing_any_more_stays_disabled(
    endpoint: WebhookEndpoint, typed: dict[str, str]
) -> None:
    client, page = owner(endpoint), page_of(endpoint)
    sent = filled(client.get(page))
    WebhookEndpoint.objects.update(is_active=False, disabled_reason="It answered 410 Gone.")
    assert refusals(client.post(page, sent | typed)) == []
    endpoint.refresh_from_db()
    assert (endpoint.is_active, endpoint.disabled_reason) == (False, "It answered 410 Gone.")
    assert endpoint.description == typed.get("description", "")


def test_events_that_two_choose_are_those_of_who_has_read_of_the_other(
    endpoint: WebhookEndpoint,
) -> None:
    client, page = owner(endpoint), page_of(endpoint)
    sent = filled(client.get(page))
    WebhookEndpoint.objects.update(event_types=["purchase.refunded"])
    answer = client.post(page, sent | {"event_types": ["purchase.paid"]})
    assert len(refusals(answer)) == 1
    assert "Meanwhile this became: purchase.refunded." in refusals(answer)[0]
    assert refusals(client.post(page, filled(answer))) == []
    endpoint.refresh_from_db()
    assert endpoint.event_types == ["purchase.paid"]
