"""Pages of the back-office that were open while a colleague, or the system, changed what they show.

Each test opens a page, has something else happen, and sends what a browser would.
"""

import html
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any

import pytest
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.db import transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from fulfillment.bookings import following
from fulfillment.bookings.admin import ON_AN_OFFERS_PAGE
from fulfillment.bookings.models import TimeSlot
from fulfillment.digital.models import DigitalContent
from offers import membership
from offers.models import Event, Membership, Offer, Organization
from purchases.models import WebhookEndpoint
from tests.booked_services import Service, booking_of, told
from tests.conftest import at_once, blocked_backends
from tests.digital_content import content_offer, delivered, fill_pool
from tests.factories import (
    EventSessionFactory,
    MembershipFactory,
    OfferFactory,
    OrganizationFactory,
    TicketTierFactory,
    UserFactory,
)
from tests.sandbox_process import wait_for
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


@pytest.fixture
def event() -> Event:
    event = OfferFactory().event
    at = datetime(2090, 1, 2, 10, tzinfo=UTC)
    EventSessionFactory(event=event, title="Talk", starts_at=at, ends_at=at + timedelta(hours=1))
    TicketTierFactory(event=event, title="Gold")
    return event


ROWS = pytest.mark.parametrize("name", ["sessions", "ticket_tiers"])


@ROWS
@pytest.mark.parametrize("typed", [{}, {"slug": "mended"}], ids=["untouched", "mended"])
@pytest.mark.parametrize("whose", ["the event's page", "its own page"])
def test_title_that_a_colleague_changed_stays_when_another_field_is_mended(
    event: Event, name: str, typed: dict[str, str], whose: str
) -> None:
    rows = getattr(event, name)
    is_own = whose == "its own page"
    client = manager(event.offers.get())
    page = page_of(rows.get() if is_own else event)
    sent = filled(client.get(page))
    slug = rows.get().slug
    rows.update(title="Theirs")
    mine = {key if is_own else f"{name}-0-{key}": value for key, value in typed.items()}
    assert refusals(client.post(page, sent | mine)) == []
    assert rows.values_list("title", "slug").get() == ("Theirs", typed.get("slug", slug))


def test_session_that_was_moved_stays_where_it_is_when_its_title_is_mended(event: Event) -> None:
    client, page = manager(event.offers.get()), page_of(event)
    sent = filled(client.get(page))
    moved = {at: datetime(2090, 1, 3, 9, tzinfo=UTC) for at in ("starts_at", "ends_at")}
    event.sessions.update(**moved)
    assert refusals(client.post(page, sent | {"sessions-0-title": "Mine"})) == []
    assert event.sessions.values("title", *moved).get() == {"title": "Mine"} | moved


@ROWS
def test_title_that_two_change_is_that_of_who_has_read_of_the_other(
    event: Event, name: str
) -> None:
    rows = getattr(event, name)
    client, page = manager(event.offers.get()), page_of(event)
    sent = filled(client.get(page))
    rows.update(title="Theirs & so on")
    answer = client.post(page, sent | {f"{name}-0-title": "Mine", "title": "The event"})
    assert len(refusals(answer)) == 1
    assert "Meanwhile this became: Theirs & so on." in refusals(answer)[0]
    assert rows.get().title == "Theirs & so on"
    again = filled(answer)
    rows.update(slug="theirs")
    assert refusals(client.post(page, again)) == []
    assert rows.values_list("title", "slug").get() == ("Mine", "theirs")
    event.refresh_from_db()
    assert event.title == "The event"


def test_row_that_was_typed_survives_a_refusal_and_a_change_of_another(event: Event) -> None:
    client, page = manager(event.offers.get()), page_of(event)
    added = {"ticket_tiers-1-title": "Silver", "ticket_tiers-1-slug": "silver"}
    sent = filled(client.get(page)) | added | {"ticket_tiers-TOTAL_FORMS": "2", "title": ""}
    answer = client.post(page, sent)
    assert refusals(answer) != []
    event.ticket_tiers.update(title="Theirs")
    assert refusals(client.post(page, filled(answer) | {"title": "A title"})) == []
    assert set(event.ticket_tiers.values_list("title", flat=True)) == {"Theirs", "Silver"}


@pytest.mark.parametrize("shown", [{}, {"sessions-SHOWN": "&=%ff&sessions-0-title=No&title=No"}])
def test_rows_of_a_page_that_does_not_say_what_it_showed_are_saved_as_they_are_sent(
    event: Event, shown: dict[str, str]
) -> None:
    client, page = manager(event.offers.get()), page_of(event)
    sent = filled(client.get(page)) | {"sessions-0-title": "Mine", "sessions-0-slug": "mine"}
    del sent["sessions-SHOWN"]
    event.sessions.update(slug="theirs")
    assert refusals(client.post(page, sent | shown)) == []
    assert event.sessions.values_list("title", "slug").get() == ("Mine", "mine")


def test_event_has_as_many_sessions_as_if_nothing_were_sent_along(event: Event) -> None:
    event.sessions.all().delete()
    EventSessionFactory.create_batch(110, event=event)
    client, page = manager(event.offers.get()), page_of(event)
    sent = filled(client.get(page))
    assert len([name for name in sent if name.startswith("sessions-7-")]) == 8
    last = event.sessions.get(pk=sent["sessions-109-id"])
    type(last).objects.filter(pk=last.pk).update(slug="theirs")
    assert refusals(client.post(page, sent | {"sessions-109-title": "Mine"})) == []
    last.refresh_from_db()
    assert (last.title, last.slug) == ("Mine", "theirs")


# -- Members --------------------------------------------------------------------------------------


@pytest.fixture
def members() -> list[Membership]:
    """Two owners and one of the support, as the page of their organization lists them."""
    organization = OrganizationFactory()
    roles = ("owner", "owner", "support")
    return [MembershipFactory(organization=organization, role=role) for role in roles]


def first_of(members: list[Membership]) -> Client:
    client = Client()
    user = members[0].user
    user.is_staff = True
    user.save()
    client.force_login(user)
    return client


@pytest.mark.parametrize("whose", ["the organization's page", "its own page"])
def test_member_whose_role_was_taken_does_not_get_it_back(
    members: list[Membership], whose: str
) -> None:
    client, organization = first_of(members), members[0].organization
    is_own = whose == "its own page"
    page = page_of(members[1] if is_own else organization)
    sent = filled(client.get(page))
    Membership.objects.filter(pk=members[1].pk).update(role="support")
    other = UserFactory()
    mine = {"user": other.username} if is_own else {"memberships-1-user": other.username}
    assert refusals(client.post(page, sent | mine)) == []
    members[1].refresh_from_db()
    assert (members[1].role, members[1].user) == ("support", other)


def test_member_that_nobody_touched_is_not_written_and_not_in_the_log(
    members: list[Membership],
) -> None:
    client, page = first_of(members), page_of(members[0].organization)
    sent = filled(client.get(page)) | {"name": "Renamed"}
    Membership.objects.filter(pk=members[1].pk).update(role="support")
    assert refusals(client.post(page, sent)) == []
    members[1].refresh_from_db()
    assert members[1].role == "support"
    assert LogEntry.objects.get().get_change_message() == "Changed Name."


def test_role_that_two_change_is_that_of_who_has_read_of_the_other(
    members: list[Membership],
) -> None:
    client, page = first_of(members), page_of(members[0].organization)
    sent = filled(client.get(page)) | {"memberships-2-role": "manager"}
    Membership.objects.filter(pk=members[2].pk).update(role="owner")
    answer = client.post(page, sent)
    assert refusals(answer) == [
        "Meanwhile this became: owner. If you save again, what you see here is what counts."
    ]
    assert refusals(client.post(page, filled(answer))) == []
    members[2].refresh_from_db()
    assert members[2].role == "manager"


def test_account_that_two_change_is_that_of_who_has_read_of_the_other(
    members: list[Membership],
) -> None:
    client, page = first_of(members), page_of(members[0].organization)
    theirs, mine = UserFactory(), UserFactory()
    sent = filled(client.get(page)) | {"memberships-2-user": mine.username}
    Membership.objects.filter(pk=members[2].pk).update(user=theirs)
    answer = client.post(page, sent)
    assert len(refusals(answer)) == 1
    assert f"Meanwhile this became: {theirs.username}." in refusals(answer)[0]
    assert refusals(client.post(page, filled(answer))) == []
    members[2].refresh_from_db()
    assert members[2].user == mine


def test_owner_by_the_page_alone_does_not_let_the_last_one_go(members: list[Membership]) -> None:
    client, page = first_of(members), page_of(members[0].organization)
    sent = filled(client.get(page)) | {"memberships-0-role": "manager"}
    Membership.objects.filter(pk=members[1].pk).update(role="manager")
    answer = client.post(page, sent)
    assert "last owner" in html.unescape(answer.content.decode())
    assert list(members[0].organization.memberships.values_list("role", flat=True)) == [
        "owner", "manager", "support",
    ]  # fmt: skip


@pytest.mark.django_db(transaction=True)
def test_two_owners_who_take_each_others_role_leave_one(members: list[Membership]) -> None:
    organization = members[0].organization
    clients = [first_of(members), first_of(members[1:])]

    def demotion(of: int, *, by: int) -> Callable[[], Any]:
        sent = filled(clients[by].get(page_of(organization)))
        role = {f"memberships-{of}-role": "manager"}
        return lambda: clients[by].post(page_of(organization), sent | role)

    for _ in range(5):
        Membership.objects.filter(pk__in=[each.pk for each in members[:2]]).update(role="owner")
        answers = at_once([demotion(1, by=0), demotion(0, by=1)])
        assert sorted(answer.status_code for answer in answers) in ([200, 302], [302, 403])
        assert organization.memberships.filter(role="owner").count() == 1


@pytest.mark.parametrize("whose", ["the organization's page", "its own page"])
@pytest.mark.django_db(transaction=True)
def test_member_is_locked_after_the_organization(members: list[Membership], whose: str) -> None:
    """As by a deletion: the other way round each could wait for the other."""
    client, organization = first_of(members), members[0].organization
    is_own = whose == "its own page"
    page = page_of(members[1] if is_own else organization)
    sent = filled(client.get(page)) | {"role" if is_own else "memberships-1-role": "manager"}
    answers: list[Any] = []
    saving = Thread(target=lambda: answers.extend(at_once([lambda: client.post(page, sent)])))
    with transaction.atomic():
        membership.lock(organization.pk)
        saving.start()
        wait_for(blocked_backends)
        Membership.objects.select_for_update(nowait=True).get(pk=members[1].pk)
    saving.join()
    assert [answer.status_code for answer in answers] == [302]


@pytest.mark.parametrize("field", ["role", "user"])
def test_member_that_is_deleted_just_now_stays_so(
    members: list[Membership], field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, page = first_of(members), page_of(members[1])
    value = {"role": "manager", "user": UserFactory().username}[field]
    sent = filled(client.get(page)) | {field: value}
    gone = Membership.objects.filter(pk=members[1].pk)
    # Whoever waits for the organization waits for whom is deleting one of its members.
    monkeypatch.setattr(membership, "lock", lambda organization_id: gone.delete())
    assert "This was deleted meanwhile." in str(refusals(client.post(page, sent)))
    assert not gone.exists()


def test_page_of_an_organization_takes_as_many_queries_for_many_members(
    members: list[Membership], django_assert_max_num_queries: Callable[..., Any]
) -> None:
    MembershipFactory.create_batch(30, organization=members[0].organization)
    client = first_of(members)
    with django_assert_max_num_queries(15):
        assert client.get(page_of(members[0].organization)).status_code == 200


def test_organization_that_was_renamed_stays_so(members: list[Membership]) -> None:
    client, organization = first_of(members), members[0].organization
    sent = filled(client.get(page_of(organization))) | {"slug": "mine"}
    Organization.objects.update(name="Theirs")
    assert refusals(client.post(page_of(organization), sent)) == []
    organization.refresh_from_db()
    assert (organization.name, organization.slug) == ("Theirs", "mine")


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
