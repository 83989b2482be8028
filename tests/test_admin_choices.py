"""What members can choose and send in the admin's forms: their own organization's, nothing else."""

from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import models, transaction
from django.test import Client

from offers.models import (
    Event,
    EventSession,
    Membership,
    Offer,
    Organization,
    Registration,
    TicketTier,
)
from tests.test_admin_permissions import filled, outcome, page
from tests.test_permissions import browser_of
from tests.two_organizations import World

pytestmark = pytest.mark.django_db


def save(client: Client, url: str, **changed: Any) -> Any:
    """Open the form, change fields, send it."""
    return client.post(url, filled(client.get(url)) | changed)


def test_owner_and_manager_edit_what_is_theirs_and_support_does_not() -> None:
    world = World()
    url = page(Event, "change", world.home.event.pk)
    for who in ("owner", "manager"):
        assert outcome(save(browser_of(world[who]), url, title=f"By {who}")) == "gone"
        world.home.event.refresh_from_db()
        assert world.home.event.title == f"By {who}"
    form = filled(browser_of(world["owner"]).get(url)) | {"title": "By support"}
    support = browser_of(world["support"])
    assert support.post(url, form).status_code == 403
    assert "_save" not in support.get(url).content.decode()
    world.home.event.refresh_from_db()
    assert world.home.event.title == "By manager"


def additions(world: World, side: Any) -> dict[type[models.Model], dict[str, Any]]:
    """What to type into an empty form so that something of ``side`` comes about."""
    return {
        Event: {"organization": side.organization.pk, "title": "New", "slug": "new"},
        EventSession: {"event": side.event.pk, "title": "New", "slug": "new"},
        TicketTier: {"event": side.event.pk, "title": "New", "slug": "new"},
        Registration: {
            "event": side.event.pk, "ticket_tier": side.tier.pk, "user": world["stranger"].email
        },
        Membership: {
            "organization": side.organization.pk, "user": world["stranger"].username,
            "role": "support",
        },
        Offer: {
            "event": side.event.pk, "title": "New", "offer_type": "SERVICE", "price": "5",
            "target_sessions": [side.session.pk], "target_ticket_tiers": [side.tier.pk],
        },
    }  # fmt: skip


@pytest.mark.parametrize("model", [
    Event, EventSession, TicketTier, Registration, Membership, Offer,
], ids=lambda model: model.__name__)  # fmt: skip
def test_things_are_added_to_ones_own_organization_only(model: type[models.Model]) -> None:
    world = World()
    client = browser_of(world["owner"])
    before = model._default_manager.count()

    refused = save(client, page(model, "add"), **additions(world, world.away)[model])
    assert refused.status_code == 200
    assert refused.context["adminform"].form.errors
    assert "Rival" not in refused.content.decode()
    assert model._default_manager.count() == before

    made = save(client, page(model, "add"), **additions(world, world.home)[model])
    assert made.status_code == 302, made.context["adminform"].form.errors
    assert model._default_manager.count() == before + 1


MOVES = {
    Event: lambda side: {"organization": side.organization.pk},
    EventSession: lambda side: {"event": side.event.pk},
    TicketTier: lambda side: {"event": side.event.pk},
    Registration: lambda side: {"event": side.event.pk, "ticket_tier": side.tier.pk},
    Membership: lambda side: {"organization": side.organization.pk},
    Offer: lambda side: {"event": side.event.pk, "target_sessions": [side.session.pk]},
}


# Whose page has no field to move them by, so that what is sent for it is nothing.
STAY = (EventSession, TicketTier)


@pytest.mark.parametrize("model", MOVES, ids=lambda model: model.__name__)
@pytest.mark.parametrize("both", [False, True], ids=["owner of one", "owner of both"])
def test_nothing_moves_to_another_organization(model: type[models.Model], both: bool) -> None:
    world = World()
    if both:
        Membership.objects.create(
            organization=world.away.organization, user=world["owner"], role="owner"
        )
    thing = world.home.objects[model]
    if model is Membership:
        thing = world.home.memberships[2]
    before = model._default_manager.values().get(pk=thing.pk)
    client = browser_of(world["owner"])

    answer = save(client, page(model, "change", thing.pk), **MOVES[model](world.away))

    if model in STAY:
        assert answer.status_code == 302
    else:
        assert answer.status_code == 200
        field = next(iter(MOVES[model](world.away)))
        assert field in answer.context["adminform"].form.errors
    after = model._default_manager.values().get(pk=thing.pk)
    assert {name for name in before if before[name] != after[name]} == set()


def test_move_that_came_past_the_form_is_refused_when_it_is_saved(rf: Any) -> None:
    world = World()
    request = rf.post("/")
    request.user = world["owner"]
    model_admin = admin.site._registry[TicketTier]
    world.home.tier.event = world.away.event
    for change, tier in (
        (True, world.home.tier),
        (True, world.away.tier),
        (False, world.away.tier),
    ):
        with pytest.raises(PermissionDenied):
            model_admin.save_model(request, tier, form=None, change=change)
    assert TicketTier.objects.filter(event=world.away.event).count() == 1


def test_role_counts_in_its_own_organization_only() -> None:
    """Owner here, support there: both are in the lists, and only one can be edited."""
    world = World()
    Membership.objects.create(
        organization=world.away.organization, user=world["owner"], role="support"
    )
    client = browser_of(world["owner"])
    assert "Rival private" in client.get(page(Event, "changelist")).content.decode()
    theirs = page(Event, "change", world.away.event.pk)
    assert client.get(theirs).status_code == 200
    assert client.post(theirs, {"title": "Mine"}).status_code == 403
    refused = save(client, page(TicketTier, "add"), **additions(world, world.away)[TicketTier])
    assert set(refused.context["adminform"].form.errors) == {"event"}
    chosen = {"action": "delete_selected", "post": "yes"}
    memberships = Membership.objects.filter(organization=world.away.organization)
    picked = {"_selected_action": [m.pk for m in memberships]}
    client.post(page(Membership, "changelist"), chosen | picked)
    assert memberships.count() == 4


def test_organization_pages_rows_are_the_owners_to_change() -> None:
    world = World()
    url = page(Organization, "change", world.home.organization.pk)
    row = {
        "memberships-TOTAL_FORMS": "4", "memberships-3-user": "stranger",
        "memberships-3-role": "owner", "memberships-3-organization": world.home.organization.pk,
    }  # fmt: skip
    form = filled(browser_of(world["owner"]).get(url)) | row
    for who in ("manager", "support"):
        assert browser_of(world[who]).post(url, form).status_code == 403
        shown = browser_of(world[who]).get(url).content.decode()
        assert "Manager" in shown
        assert 'name="memberships-0-role"' not in shown
        assert 'name="_save"' not in shown
    assert browser_of(world["rival"]).post(url, form).status_code == 302
    assert Membership.objects.filter(user=world["stranger"]).count() == 0
    assert outcome(browser_of(world["owner"]).post(url, form)) == "gone"
    assert Membership.objects.get(user=world["stranger"]).organization == world.home.organization
    last = filled(browser_of(world["owner"]).get(url))["memberships-INITIAL_FORMS"]
    gone = {f"memberships-{int(last) - 1}-DELETE": "on"}
    assert outcome(save(browser_of(world["owner"]), url, **gone)) == "gone"
    assert world.home.organization.memberships.count() == 3


def test_account_is_named_exactly_and_never_chosen_from_a_list() -> None:
    world = World()
    client = browser_of(world["owner"])
    url = page(Membership, "add")
    sent = {"organization": world.home.organization.pk, "role": "support"}
    User.objects.create(username="twin1", email="twin@example.com")
    User.objects.create(username="twin2", email="TWIN@example.com")
    for typed, said in (
        (str(world["stranger"].pk), "No account"),
        ("strange", "No account"),
        ("%", "No account"),
        ("a\x00b", "No account"),
        ("", "required"),
        ("twin@example.com", "Several accounts"),
    ):
        answer = save(client, url, **sent, user=typed)
        assert answer.status_code == 200
        assert said in answer.context["adminform"].form.errors["user"][0]
    opened = client.get(url).content.decode()
    assert "stranger" not in opened
    with transaction.atomic():
        assert save(client, url, **sent, user="Stranger@example.com").status_code == 302
    added = Membership.objects.get(user=world["stranger"])
    change = page(Membership, "change", added.pk)
    assert 'value="stranger"' in client.get(change).content.decode()
    assert save(client, change, role="manager").status_code == 302
    added.refresh_from_db()
    assert (added.user, added.role) == (world["stranger"], "manager")
