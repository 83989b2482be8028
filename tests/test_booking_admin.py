"""The organizer's pages: the slots on an offer's page, who comes when, setting a time."""

import csv
import html
import io
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from fulfillment.bookings import following
from fulfillment.bookings.admin import ON_AN_OFFERS_PAGE
from fulfillment.bookings.models import ServiceDetails, TimeSlot
from offers.models import Membership, Offer
from tests.booked_services import Service, booking_of, taken, told
from tests.conftest import at_once
from tests.factories import MembershipFactory, OfferFactory, UserFactory
from tests.test_admin_pages import opened

pytestmark = pytest.mark.django_db


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def owner(service: Service) -> Client:
    user = UserFactory(is_staff=True)
    MembershipFactory(organization=service.offer.event.organization, user=user)
    client = Client()
    client.force_login(user)
    return client


# -- Slots on the offer's page --------------------------------------------------------------------


def form_of(client: Client, offer: Offer) -> dict[str, Any]:
    """What the browser would send if the offer's page were saved as it was opened."""
    page = client.get(reverse("admin:offers_offer_change", args=[offer.pk]))
    sent = opened(client, offer)
    for inline in page.context["inline_admin_formsets"]:
        formset = inline.formset
        for form in (formset.management_form, *formset.initial_forms):
            for field in form:
                value = field.value()
                if isinstance(value, datetime):
                    sent[f"{field.html_name}_0"] = f"{value:%Y-%m-%d}"
                    sent[f"{field.html_name}_1"] = f"{value:%H:%M:%S}"
                elif value is not None and value is not False:
                    sent[field.html_name] = value
    return sent


def save(client: Client, offer: Offer, sent: dict[str, Any]) -> str:
    """What the page says against it; empty if it was saved."""
    answer = client.post(reverse("admin:offers_offer_change", args=[offer.pk]), sent)
    if answer.status_code == 302:
        return ""
    said = [
        str(error)
        for formset in answer.context["inline_admin_formsets"]
        for error in (*formset.formset.non_form_errors(), *formset.formset.errors)
        if error
    ]
    assert said, answer.context["errors"]
    return " ".join(said)


def row(sent: dict[str, Any], slot: TimeSlot) -> str:
    (prefix,) = [key[:-3] for key, value in sent.items() if str(value) == str(slot.pk)]
    return prefix


def test_details_and_slots_are_set_up_on_the_offers_page(owner: Client) -> None:
    offer = OfferFactory(
        offer_type=Offer.Type.SERVICE,
        event=Service().offer.event,
    )
    MembershipFactory(organization=offer.event.organization, user_id=owner.session["_auth_user_id"])
    sent = form_of(owner, offer) | {
        "service_details-TOTAL_FORMS": "1",
        "service_details-0-location": "Room 5",
        "service_details-0-duration_minutes": "45",
        "service_details-0-change_deadline_hours": "12",
        "time_slots-TOTAL_FORMS": "1",
        "time_slots-0-starts_at_0": "2090-01-02", "time_slots-0-starts_at_1": "10:00:00",
        "time_slots-0-ends_at_0": "2090-01-02", "time_slots-0-ends_at_1": "10:45:00",
        "time_slots-0-capacity": "3",
    }  # fmt: skip
    assert save(owner, offer, sent) == ""
    assert ServiceDetails.objects.get(offer=offer).location == "Room 5"
    assert TimeSlot.objects.get(offer=offer).capacity == 3


def test_page_saved_as_it_was_opened_changes_nothing(service: Service, owner: Client) -> None:
    slot = service.slot(capacity=3)
    service.slot(hours=-1)
    sent = form_of(owner, service.offer)
    service.pick(service.sold(2), slot)  # meanwhile
    before = list(TimeSlot.objects.order_by("pk").values())
    assert save(owner, service.offer, sent) == ""
    assert list(TimeSlot.objects.order_by("pk").values()) == before
    assert taken(slot) == [2]


def test_capacity_goes_down_to_what_is_taken_and_no_further(
    service: Service, owner: Client
) -> None:
    slot = service.slot(capacity=5)
    sent = form_of(owner, service.offer)
    service.pick(service.sold(2), slot)
    field = row(sent, slot) + "-capacity"
    assert "Seats taken: 2" in save(owner, service.offer, sent | {field: "1"})
    assert save(owner, service.offer, sent | {field: "2"}) == ""
    assert taken(slot) == [2]
    assert slot.capacity == 2


def test_moving_a_booked_slot_takes_its_people_along(service: Service, owner: Client) -> None:
    slot, purchase = service.slot(hours=100), service.sold()
    service.pick(purchase, slot)
    sent = form_of(owner, service.offer)
    name = row(sent, slot)
    later = (slot.starts_at + timedelta(days=1)).date()
    day = {
        f"{name}-starts_at_0": str(later),
        f"{name}-ends_at_0": str(slot.ends_at.date() + timedelta(days=1)),
    }
    assert save(owner, service.offer, sent | day) == ""
    following.follow(now=timezone.now())
    slot.refresh_from_db()
    assert slot.starts_at.date() == later
    assert booking_of(purchase).scheduled_at == slot.starts_at
    assert told(purchase) == ["booking_open", "booked", "booked"]
    past = {f"{name}-starts_at_0": "2020-01-01", f"{name}-ends_at_0": "2020-01-01"}
    assert "in the past" in save(owner, service.offer, sent | past)


def test_booked_slot_is_called_off_and_not_deleted(service: Service, owner: Client) -> None:
    booked, free = service.slot(hours=48), service.slot(hours=50)
    purchase = service.sold()
    service.pick(purchase, booked)
    sent = form_of(owner, service.offer)
    said = save(owner, service.offer, sent | {row(sent, booked) + "-DELETE": "on"})
    assert "seats taken: 1" in said
    assert save(owner, service.offer, sent | {row(sent, free) + "-DELETE": "on"}) == ""
    assert TimeSlot.objects.get() == booked
    sent = form_of(owner, service.offer)
    assert save(owner, service.offer, sent | {row(sent, booked) + "-is_called_off": "on"}) == ""
    following.follow(now=timezone.now())
    assert told(purchase)[-1] == "booking_cancelled"
    assert taken(booked) == [0]


def test_slot_that_has_begun_stays_on_record(service: Service, owner: Client) -> None:
    slot = service.slot(hours=1)
    service.pick(service.sold(), slot)
    slot.starts_at, slot.ends_at = (
        service.now - timedelta(hours=1),
        service.now + timedelta(hours=1),
    )
    slot.save()
    sent = form_of(owner, service.offer)
    said = save(owner, service.offer, sent | {row(sent, slot) + "-is_called_off": "on"})
    assert "has begun" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"-starts_at_0": "2090-01-01"}, "end after it starts"),
        ({"-capacity": "0"}, "greater than or equal to 1"),
    ],
)
def test_slot_that_makes_no_sense_is_refused(
    service: Service, owner: Client, change: dict[str, str], said: str
) -> None:
    slot = service.slot()
    sent = form_of(owner, service.offer)
    name = row(sent, slot)
    wrong = {f"{name}{field}": value for field, value in change.items()}
    assert said in html.unescape(save(owner, service.offer, sent | wrong))


def test_second_slot_at_the_same_time_is_refused(service: Service, owner: Client) -> None:
    one, two = service.slot(hours=48), service.slot(hours=50)
    sent = form_of(owner, service.offer)
    there = {
        row(sent, two) + f"-{field}_{part}": sent[row(sent, one) + f"-{field}_{part}"]
        for field in ("starts_at", "ends_at")
        for part in (0, 1)
    }
    assert "duplicate data for starts_at" in save(owner, service.offer, sent | there)


def test_page_of_an_offer_with_many_slots_can_be_saved(service: Service, owner: Client) -> None:
    for number in range(ON_AN_OFFERS_PAGE + 40):
        service.slot(hours=48 + number)
    sent = form_of(owner, service.offer)
    assert sent["time_slots-TOTAL_FORMS"] == ON_AN_OFFERS_PAGE
    assert save(owner, service.offer, sent | {"title": "New"}) == ""
    listed = owner.get(
        reverse("admin:fulfillment_timeslot_changelist"),
        {"offer__id__exact": str(service.offer.pk)},
    )
    assert listed.status_code == 200
    assert listed.context["cl"].result_count == ON_AN_OFFERS_PAGE + 40


def test_slots_own_page_has_the_same_rules(service: Service, owner: Client) -> None:
    slot = service.slot(capacity=3)
    service.pick(service.sold(2), slot)
    url = reverse("admin:fulfillment_timeslot_change", args=[slot.pk])
    sent = {
        "starts_at_0": f"{slot.starts_at:%Y-%m-%d}", "starts_at_1": f"{slot.starts_at:%H:%M:%S}",
        "ends_at_0": f"{slot.ends_at:%Y-%m-%d}", "ends_at_1": f"{slot.ends_at:%H:%M:%S}",
    }  # fmt: skip
    assert "Seats taken: 2" in owner.post(url, sent | {"capacity": "1"}).content.decode()
    assert owner.post(url, sent | {"capacity": "2"}).status_code == 302
    delete = reverse("admin:fulfillment_timeslot_delete", args=[slot.pk])
    owner.post(delete, {"post": "yes"})
    assert taken(slot) == [2]
    add = reverse("admin:fulfillment_timeslot_add")
    hoodie = OfferFactory(event=service.offer.event)
    answer = owner.post(add, sent | {"capacity": "1", "offer": hoodie.pk})
    assert "Only a service" in answer.content.decode()


@pytest.mark.django_db(transaction=True)
def test_capacity_and_bookings_at_once_never_overbook(client_of: Any) -> None:
    for _ in range(3):
        service = Service(inventory_total=None)
        user = UserFactory(is_staff=True)
        MembershipFactory(organization=service.offer.event.organization, user=user)
        owner = Client()
        owner.force_login(user)
        slot = service.slot(capacity=6)
        buyers = [service.sold() for _ in range(6)]
        sent = form_of(owner, service.offer)
        sent[row(sent, slot) + "-capacity"] = "3"
        answers = at_once(
            [
                *[lambda buyer=buyer, by=service, to=slot: by.pick(buyer, to) for buyer in buyers],
                lambda client=owner, by=service, form=sent: save(client, by.offer, form),
            ]
        )
        said = [answer for answer in answers if isinstance(answer, str)]
        assert len(said) == 1
        (seats,) = taken(slot)
        assert seats <= slot.capacity == (6 if said[0] else 3)


# -- Who comes when -------------------------------------------------------------------------------


def test_bookings_are_printed_by_day_and_exported(service: Service, owner: Client) -> None:
    first, second, waiting = service.sold(), service.sold(2), service.sold()
    service.pick(second, service.slot(hours=80, capacity=2))
    service.pick(first, service.slot(hours=48))
    foreign = Service().sold()
    url = reverse("admin:fulfillment_servicebooking_changelist")
    chosen = [booking_of(p).pk for p in (first, second, waiting, foreign)]
    page = owner.post(url, {"action": "print_by_day", "_selected_action": chosen}).content.decode()
    names = [p.user.username for p in (first, second, waiting)]
    assert sorted(names, key=page.index) == names
    assert "No time yet" in page
    assert f">{foreign.user.username}<" not in page
    file = owner.post(url, {"action": "export", "_selected_action": chosen})
    assert file["Content-Type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(file.content.decode("utf-8-sig"))))
    assert [line["name"] for line in rows] == names
    assert [line["seats"] for line in rows] == ["1", "2", "1"]
    assert rows[0]["starts (UTC)"] == f"{booking_of(first).scheduled_at:%Y-%m-%d %H:%M}"
    assert rows[2]["starts (UTC)"] == ""


def test_support_exports_too_and_lists_take_few_queries(
    service: Service, django_assert_max_num_queries: Any
) -> None:
    user = UserFactory(is_staff=True)
    MembershipFactory(
        organization=service.offer.event.organization, user=user, role=Membership.Role.SUPPORT
    )
    client = Client()
    client.force_login(user)
    slot = service.slot(capacity=10)
    purchases = [service.sold() for _ in range(8)]
    for purchase in purchases:
        service.pick(purchase, slot)
    url = reverse("admin:fulfillment_servicebooking_changelist")
    with django_assert_max_num_queries(15):
        listed = client.get(url, {"fulfillment__purchase__offer__id__exact": service.offer.pk})
    assert listed.status_code == 200
    assert listed.context["cl"].result_count == 8
    chosen = [booking_of(p).pk for p in purchases]
    with django_assert_max_num_queries(12):
        file = client.post(url, {"action": "export", "_selected_action": chosen})
    assert file.content.count(b"\n") == 9


# -- Setting a time -------------------------------------------------------------------------------


def time_url(purchase: Any) -> str:
    return reverse("admin:fulfillment_servicebooking_time", args=[booking_of(purchase).pk])


def test_staff_set_a_time_of_its_own_then_a_slot_then_cancel(
    service: Service, owner: Client
) -> None:
    purchase, slot = service.sold(), service.slot()
    full = service.slot(hours=51)
    service.pick(service.sold(), full)
    url = time_url(purchase)
    page = owner.get(url).content.decode()
    assert f'value="{slot.pk}"' in page
    assert f'value="{full.pk}"' not in page
    day = (service.now + timedelta(days=3)).date()
    own = {"starts_at_0": str(day), "starts_at_1": "18:00", "location": "Café"}
    assert owner.post(url, own).status_code == 302
    booking = booking_of(purchase)
    assert f"{booking.scheduled_at:%Y-%m-%d %H:%M}" == f"{day} 18:00"
    assert booking.ends_at - booking.scheduled_at == timedelta(minutes=30)  # the usual duration
    assert (booking.location, booking.slot) == ("Café", None)
    assert owner.post(url, {"slot": str(slot.pk)}).status_code == 302
    assert taken(slot) == [1]
    assert owner.post(url, {"cancel": "1"}).status_code == 302
    assert taken(slot) == [0]
    assert told(purchase) == ["booking_open", "booked", "booked", "booking_cancelled"]


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({}, "Choose a slot, or give a time."),
        ({"starts_at_0": "2020-01-01", "starts_at_1": "10:00"}, "in the past"),
        ({"starts_at_0": "2090-01-01"}, "Enter a valid time"),
        ({"starts_at_0": "9999-12-31", "starts_at_1": "23:59"}, "too far away"),
        (
            {
                "starts_at_0": "2090-01-01", "starts_at_1": "10:00",
                "ends_at_0": "2090-01-01", "ends_at_1": "10:00",
            },
            "end after it starts",
        ),
        ({"slot": "8a0a1a51-4d5c-4c1b-9f86-0d8f2ec0a6f1"}, "not one of the available choices"),
    ],
)  # fmt: skip
def test_time_that_makes_no_sense_is_refused(
    service: Service, owner: Client, sent: dict[str, str], said: str
) -> None:
    purchase = service.sold()
    page = owner.post(time_url(purchase), sent)
    assert page.status_code == 200
    assert said in html.unescape(page.content.decode())
    assert told(purchase) == ["booking_open"]


def test_slot_and_time_together_are_refused(service: Service, owner: Client) -> None:
    purchase, slot = service.sold(), service.slot()
    sent = {"slot": str(slot.pk), "starts_at_0": "2090-01-01", "starts_at_1": "10:00"}
    assert "not both" in owner.post(time_url(purchase), sent).content.decode()
    assert taken(slot) == [0]
