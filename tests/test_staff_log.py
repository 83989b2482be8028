"""Who did what: on record whatever the way, and readable by those whom it concerns."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.test import Client
from django.urls import reverse

from offers import staff_log
from offers.models import Membership, Offer
from offers.staff_log import OrganizationOfEntry
from tests.factories import EventFactory, MembershipFactory, OfferFactory, UserFactory
from tests.test_permissions import browser_of
from tests.two_organizations import World

pytestmark = pytest.mark.django_db

LOG = reverse("admin:admin_logentry_changelist")


def shown(client: Client, **query: str) -> str:
    answer = client.get(LOG, query)
    assert answer.status_code == 200
    return str(answer.content.decode())


def test_members_read_what_is_about_their_objects_whoever_did_it() -> None:
    world = World()
    superuser = world["superuser"]
    staff_log.record(superuser, world.home.purchase, message="Looked into it.")
    staff_log.record(superuser, world.away.purchase, message="Rival matter.")
    staff_log.record(superuser, world["buyer"], message="Closed the account.")
    for who in ("owner", "manager", "support"):
        text = shown(browser_of(world[who]))
        assert "Looked into it." in text
        assert "Rival" not in text
        assert "Closed the account." not in text
    everything = shown(browser_of(superuser))
    for said in ("Looked into it.", "Rival matter.", "Closed the account."):
        assert said in everything


def test_who_works_for_two_organizations_shows_neither_what_is_the_others() -> None:
    world = World()
    both = UserFactory()
    for side in (world.home, world.away):
        MembershipFactory(organization=side.organization, user=both, role=Membership.Role.MANAGER)
    staff_log.record(both, world.away.offer, message="Rival matter.")
    assert "Rival" not in shown(browser_of(world["owner"]))
    assert "Rival matter." in shown(browser_of(both))


def test_deleted_objects_stay_in_the_log_of_their_organization() -> None:
    world = World()
    gone = world.home.memberships[2]
    name = str(gone)
    owner = browser_of(world["owner"])
    owner.post(reverse("admin:offers_membership_delete", args=[gone.pk]), {"post": "yes"})
    assert not Membership.objects.filter(pk=gone.pk).exists()
    entry = LogEntry.objects.get(action_flag=DELETION)
    assert entry.object_repr == name
    assert name in shown(owner, action_flag__exact=str(DELETION))


def test_forms_and_actions_are_logged_with_their_organization() -> None:
    world = World()
    client = browser_of(world["owner"])
    before = LogEntry.objects.count()
    url = reverse("admin:offers_eventsession_change", args=[world.home.session.pk])
    session = world.home.session
    sent = {"event": session.event_id, "title": "New title", "slug": session.slug}
    assert client.post(url, sent).status_code == 302
    sent = {"action": "pause", "_selected_action": str(world.home.objects[Offer].pk)}
    client.post(reverse("admin:offers_offer_changelist"), sent)
    new = LogEntry.objects.order_by("pk")[before:]
    assert [(entry.user.username, entry.action_flag) for entry in new] == [("Owner", CHANGE)] * 2
    assert all(entry.about.organization == world.home.organization for entry in new)


def test_log_is_read_only_even_for_superusers() -> None:
    world = World()
    entry = staff_log.record(world["owner"], world.home.offer, message="x")[0]
    client = browser_of(world["superuser"])
    for name, args in (("add", []), ("delete", [entry.pk])):
        url = reverse(f"admin:admin_logentry_{name}", args=args)
        assert client.post(url, {"post": "yes"}).status_code == 403
    url = reverse("admin:admin_logentry_change", args=[entry.pk])
    assert client.post(url, {"change_message": "y"}).status_code == 403


def test_entries_are_found_by_person_day_and_action() -> None:
    world = World()
    staff_log.record(world["manager"], world.home.offer, message="By the manager.")
    staff_log.record(world["owner"], world.home.offer, message="By the owner.")
    client = browser_of(world["owner"])
    text = shown(client, person=str(world["manager"].pk))
    assert "By the manager." in text
    assert "By the owner." not in text
    assert "Rival" not in shown(client, person=str(world["rival"].pk))
    assert "By the owner." in shown(client, action_flag__exact=str(CHANGE))
    assert "By the owner." not in shown(client, action_time__lt="2020-01-01 00:00:00+00:00")
    assert "By the owner." in shown(client, q="by the owner")


def test_many_are_logged_by_few_statements(
    django_assert_max_num_queries: Callable[..., Any],
) -> None:
    event = EventFactory()
    offers: list[Offer] = OfferFactory.create_batch(30, event=event)
    actor = UserFactory()
    staff_log.record(actor, offers[0], message="warm")
    with django_assert_max_num_queries(5):
        staff_log.record(actor, *offers, message="Archived.")
    noted = OrganizationOfEntry.objects.filter(organization=event.organization)
    assert noted.count() == 31


def test_list_takes_few_queries(django_assert_max_num_queries: Callable[..., Any]) -> None:
    world = World()
    for offer in OfferFactory.create_batch(20, event=world.home.event):
        staff_log.record(world["owner"], offer, message="x")
    client = browser_of(world["owner"])
    with django_assert_max_num_queries(9):
        shown(client)


def test_what_no_person_did_is_not_logged() -> None:
    assert staff_log.record(None, OfferFactory(), message="x") == []
    assert not LogEntry.objects.exists()
