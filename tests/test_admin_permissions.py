"""Who may and who may not, on every page of the admin: by role, and by organization."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import get_fields_from_path
from django.contrib.auth.models import Group, User
from django.db import models
from django.urls import NoReverseMatch, URLResolver, reverse
from django.utils import timezone
from waffle.models import Flag, Sample, Switch

from fulfillment.bookings.models import ServiceBooking, TimeSlot
from fulfillment.digital.models import AccessCode
from fulfillment.models import Fulfillment
from fulfillment.shipping.models import ShippingOrder
from fulfillment.tickets.models import TicketUpgrade
from offers.models import (
    Event,
    EventSession,
    Membership,
    Offer,
    Organization,
    Registration,
    TicketTier,
)
from offers.scoped_admin import OwnOnly, ScopedAdmin, ScopedInline, SuperusersOnly
from offers_project.back_office.dashboard.pages import FILES
from offers_project.local.demo_data import create_demo
from purchases.models import (
    BulkJob,
    Dispute,
    Email,
    Purchase,
    PurchaseTransition,
    Refund,
    StripeEvent,
    WebhookDelivery,
    WebhookEndpoint,
)
from tests.factories import OfferFactory
from tests.test_architecture import APPS
from tests.test_permissions import browser_of, undone
from tests.two_organizations import ATTENDEES, CALLERS, MEMBERS, World

pytestmark = pytest.mark.django_db

MODELS = sorted(admin.site._registry, key=lambda model: model._meta.label)
every_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: model._meta.label)

# v = view, a = add, c = change, d = delete, of what belongs to one's own organization. Whoever is
# not named may nothing: another organization's people, attendees, staff without a membership.
EDITED = {"owner": "vac", "manager": "vac", "support": "v", "superuser": "vacd"}
LOOKED_AT = {"owner": "v", "manager": "v", "support": "v", "superuser": "v"}
RIGHTS: dict[type[models.Model], dict[str, str]] = {
    Organization: {"owner": "vc", "manager": "v", "support": "v", "superuser": "vacd"},
    Membership: {"owner": "vacd", "manager": "v", "support": "v", "superuser": "vacd"},
    Event: EDITED,
    EventSession: EDITED,
    TicketTier: EDITED,
    Registration: EDITED,
    Offer: EDITED | {"superuser": "vac"},
    Purchase: LOOKED_AT,
    PurchaseTransition: LOOKED_AT,
    Refund: LOOKED_AT,
    BulkJob: LOOKED_AT,
    Dispute: LOOKED_AT,
    Email: LOOKED_AT,
    Fulfillment: LOOKED_AT,
    WebhookEndpoint: {"owner": "vac", "manager": "vac", "superuser": "vac"},
    WebhookDelivery: LOOKED_AT,
    # A free one, that is: what was given is deleted by nobody.
    AccessCode: {"owner": "vd", "manager": "vd", "support": "v", "superuser": "vd"},
    TicketUpgrade: LOOKED_AT,
    ShippingOrder: LOOKED_AT,
    TimeSlot: {"owner": "vacd", "manager": "vacd", "support": "v", "superuser": "vacd"},
    ServiceBooking: LOOKED_AT,
    LogEntry: LOOKED_AT,
    StripeEvent: {"superuser": "v"},
    User: {"superuser": "vacd"},
    Group: {"superuser": "vacd"},
    Flag: {"superuser": "vacd"},
    Sample: {"superuser": "vacd"},
    Switch: {"superuser": "vacd"},
}
OURS = [model for model in MODELS if model._meta.app_label in APPS]
SCOPED = [model for model in MODELS if isinstance(admin.site._registry[model], ScopedAdmin)]
every_scoped_model = pytest.mark.parametrize("model", SCOPED, ids=lambda m: m._meta.label)


def page(model: type[models.Model], name: str, *args: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{name}", args=args)


def subject(world: World, model: type[models.Model]) -> Any:
    """The object of ``model`` that the table is about: the first organization's, if it has one."""
    if model in world.home.objects:
        return world.home.objects[model]
    if model is User:
        return world["buyer"]
    if model is Sample:
        return Sample.objects.get_or_create(name="x", defaults={"percent": 5})[0]
    return model._default_manager.first() or model._default_manager.create(name="x")


class Form(HTMLParser):
    """The values that a browser would send back from the page's first form with fields."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sent: dict[str, Any] = {}
        self.select = ""
        self.area: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, found: Any) -> None:
        attrs = dict(found)
        name = attrs.get("name")
        if tag == "input" and name and attrs.get("type") not in ("submit", "button", "file"):
            ticked = attrs.get("type") not in ("checkbox", "radio") or "checked" in attrs
            if ticked:
                self.sent[name] = attrs.get("value") or ("on" if "checked" in attrs else "")
        elif tag == "select" and name:
            self.select = name
        elif tag == "option" and "selected" in attrs and self.select:
            self.sent.setdefault(self.select, []).append(attrs.get("value", ""))
        elif tag == "textarea" and name:
            self.area, self.sent[name] = name, ""

    def handle_data(self, data: str) -> None:
        if self.area:
            self.sent[self.area] += data.strip()

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea":
            self.area = None
        elif tag == "select":
            self.select = ""


def filled(answer: Any) -> dict[str, Any]:
    text = re.sub(r"__prefix__", "prefix", answer.content.decode())
    sent = Form(text[text.index('<div id="content-main"') :]).sent
    return {name: value for name, value in sent.items() if "-prefix-" not in name}


# -- The rule is everywhere -----------------------------------------------------------------------


def test_every_admin_class_of_ours_says_whose_it_is() -> None:
    for model in OURS:
        model_admin = admin.site._registry[model]
        scoped = isinstance(model_admin, ScopedAdmin)
        assert scoped != isinstance(model_admin, SuperusersOnly), model
        if scoped:
            for name in model_admin.organization.split("__")[:-1]:
                model = model._meta.get_field(name).related_model
            last = model_admin.organization.rpartition("__")[2]
            target = model if last == "pk" else model._meta.get_field(last).related_model
            assert target is Organization
        for inline in model_admin.inlines:
            assert issubclass(inline, ScopedInline)


def test_every_admin_page_is_in_the_table() -> None:
    assert set(RIGHTS) == set(MODELS)


# -- Every other address --------------------------------------------------------------------------

# Django's own five a model, which the table is about; and what every member may open, or anybody.
OF_A_MODEL = ("changelist", "add", "change", "history", "delete")
OF_EVERYBODY = {
    "index", "login", "logout", "password_change", "password_change_done", "autocomplete",
    "jsi18n", "view_on_site", "app_list", "search",
    None,  # the catch-all, and the old address of an object, which leads to its change page
}  # fmt: skip
# Whoever writes a page does nothing here: it is for owners, managers and superusers. What else it
# is to be is said here.
OF_SUPERUSERS = {
    "kill_switch", "auth_user_password_change", "purchases_stripeevent_replay",
}  # fmt: skip
OF_SUPPORT_TOO = {
    "fulfillment_shippingorder_packing_list", "fulfillment_shippingorder_packing_csv",
    "fulfillment_shippingorder_without_address", "offers_offer_given_codes",
    "offers_offer_stuck_holds", "purchases_purchase_release",
    "purchases_bulkjob_progress", "purchases_bulkjob_results",
    "purchases_purchase_export", "offers_offer_export", "dashboard_csv",
}  # fmt: skip
# Open for whoever chose the rows, and nobody else: tests/test_bulk_admin.py.
OF_WHO_ASKED = {"purchases_bulkjob_confirm"}
# About an object that the query names, not the path.
ABOUT_AN_OFFER = {"offers_offer_stuck_holds"}
# Not of an object, though the path takes something: each organization's own, and empty for staff
# of none, as the index is.
OF_ONES_OWN = {"dashboard_csv"}
# The script of the offer's form posts what is typed; a GET is refused to everybody.
POSTED_TO = {"offers_offer_preview"}


def addresses(patterns: Any = None) -> dict[str | None, list[str]]:
    """Every name in the admin, with what its address takes."""
    found: dict[str | None, list[str]] = {}
    for pattern in admin.site.urls[0] if patterns is None else patterns:
        if isinstance(pattern, URLResolver):
            found |= addresses(pattern.url_patterns)
        else:
            found[pattern.name] = list(pattern.pattern.converters)
    return found


def own_addresses() -> list[tuple[str, list[str]]]:
    of_models = {
        f"{model._meta.app_label}_{model._meta.model_name}_{kind}"
        for model in MODELS
        for kind in OF_A_MODEL
    }
    known = of_models | OF_EVERYBODY | OF_WHO_ASKED
    return [(name, takes) for name, takes in addresses().items() if name and name not in known]


def possible_keys(world: World, name: str) -> list[Any]:
    """Keys of the first organization's objects that the address ``name`` may be about."""
    models_of = {f"{model._meta.app_label}_{model._meta.model_name}": model for model in MODELS}
    own = [thing for prefix, thing in models_of.items() if name.startswith(f"{prefix}_")]
    of_each_type = [OfferFactory(event=world.home.event, offer_type=kind).pk for kind in Offer.Type]
    # An order that waits for its address, a purchase that can be paid back.
    return [
        *(subject(world, model).pk for model in own),
        *of_each_type,
        world.home.fulfillment.pk,
        *(FILES if name == "dashboard_csv" else ()),
    ]


@pytest.mark.parametrize(("name", "takes"), own_addresses(), ids=lambda value: str(value))
def test_own_page_opens_for_whom_it_should(name: str, takes: list[str]) -> None:
    world = World()
    urls = (
        [reverse(f"admin:{name}")]
        if not takes
        else [
            reverse(f"admin:{name}", args=[key])
            for key in possible_keys(world, name)
            if fits(name, key)
        ]
    )
    if name in ABOUT_AN_OFFER:
        urls = [f"{url}?offer={world.home.offer.pk}" for url in urls]
    seen: dict[str, set[int]] = {}
    for url in urls:
        how = "post" if name in POSTED_TO else "get"
        if takes and ask(world, "superuser", url, how).status_code == 404:
            continue
        for who in CALLERS:
            answer = ask(world, who, url, how)
            if name in OF_ONES_OWN and who in ("rival", "ticked"):
                assert "Home " not in answer.content.decode(), (who, url)
            sent_on = answer.status_code == 302 and answer.url.startswith("/admin/login/")
            seen.setdefault(who, set()).add(401 if sent_on else answer.status_code)
    assert seen, "No object of the two organizations opens this page: make one in World."
    closed = {403, 404}
    for who in ("anonymous", *ATTENDEES):
        assert seen[who] == {401}, who
    if name not in OF_ONES_OWN:
        assert seen["ticked"] <= closed
    assert not seen["superuser"] & closed
    members_may = name not in OF_SUPERUSERS
    for who in ("owner", "manager"):
        assert bool(seen[who] & closed) != members_may, who
    support_may = members_may and name in OF_SUPPORT_TOO
    assert bool(seen["support"] & closed) != support_may
    # What is of no object is each organization's own page of it.
    about_one = name in ABOUT_AN_OFFER or (takes and name not in OF_ONES_OWN)
    if about_one or not members_may:
        assert seen["rival"] <= closed


def fits(name: str, key: Any) -> bool:
    try:
        reverse(f"admin:{name}", args=[key])
    except NoReverseMatch:
        return False
    return True


def ask(world: World, who: str, url: str, how: str) -> Any:
    with undone():
        return getattr(browser_of(world.people[who]), how)(url)


# What support does on the lists, beside looking and exporting: the names of the actions.
SUPPORT_DOES = {"release_holds"}


@every_model
def test_action_changes_nothing_for_whom_it_should_not(model: type[models.Model], rf: Any) -> None:
    world = World()
    request = rf.get("/")
    request.user = world["superuser"]
    thing = subject(world, model)
    # Anonymous callers and attendees aren't let in at all: the test above.
    clients = {who: browser_of(world[who]) for who in ("buyer", "ticked", "rival", "support")}
    before = everything()
    for name in admin.site._registry[model].get_actions(request):
        sent = {"action": name, "_selected_action": str(thing.pk), "post": "yes", "reason": "x"}
        for who, client in clients.items():
            if who == "support" and name in SUPPORT_DOES:
                continue
            with undone():
                answer = client.post(page(model, "changelist"), sent)
                assert answer.status_code in (200, 302, 403), (who, name)
                assert everything() == before, (who, name)
                if who != "support":
                    # A spreadsheet is no text.
                    shown = answer.content.decode(errors="replace")
                    assert "Home " not in shown, (who, name)


def everything() -> dict[type[models.Model], list[dict[str, Any]]]:
    """All rows but the log's, for who exports is in it."""
    return {
        model: list(model._default_manager.order_by("pk").values())
        for model in MODELS
        if model is not LogEntry
    }


@pytest.mark.parametrize("who", CALLERS)
def test_index_opens_for_members_and_shows_nothing_of_others(who: str) -> None:
    world = World()
    answer = browser_of(world.people[who]).get(reverse("admin:index"))
    entered = who not in ("anonymous", *ATTENDEES)
    assert answer.status_code == (200 if entered else 302)
    text = answer.content.decode()
    if who not in ("rival", "superuser"):
        assert "Rival" not in text
    if who in ("rival", "ticked"):
        assert "Home " not in text


# -- The table ------------------------------------------------------------------------------------


@every_model
def test_page_opens_for_whom_it_should(model: type[models.Model]) -> None:
    world = World()
    thing = subject(world, model)
    wrong = []
    for who in CALLERS:
        client = browser_of(world.people[who])
        rights = RIGHTS[model].get(who, "")
        for name, right, args in (
            ("changelist", "v", ()),
            ("add", "a", ()),
            ("change", "v", (thing.pk,)),
            ("history", "v", (thing.pk,)),
            ("delete", "d", (thing.pk,)),
        ):
            answer = client.get(page(model, name, *args))
            expected = "open" if right in rights else closed_to(who, model, name)
            if (seen := outcome(answer)) not in expected.split():
                wrong.append(f"{who} {name}: {seen}, not {expected}")
            if seen == "open" and name == "changelist" and who != "superuser":
                assert "Rival" not in answer.content.decode() or who == "rival"
    assert wrong == []


def outcome(answer: Any) -> str:
    if answer.status_code == 302:
        return "login" if answer.url.startswith("/admin/login/") else f"gone {answer.url}"[:4]
    return {200: "open", 403: "forbidden"}[answer.status_code]


def closed_to(who: str, model: type[models.Model], name: str) -> str:
    """What meets whom it isn't for."""
    if who in ("anonymous", "buyer", "attendee", "stranger"):
        return "login"
    if who != "rival":
        # Django looks for the object first: staff of no organization hear that there is none.
        return "forbidden gone" if name == "history" and model in SCOPED else "forbidden"
    # Their own organization's list is theirs to see; what is in it, the next tests say.
    own = RIGHTS[model].get("owner", "")
    if name in ("changelist", "add"):
        return "open" if {"changelist": "v", "add": "a"}[name] in own else "forbidden"
    return "gone forbidden"


@every_model
def test_post_changes_nothing_for_whom_it_should_not(model: type[models.Model]) -> None:
    world = World()
    thing = subject(world, model)
    clients = {who: browser_of(world.people[who]) for who in CALLERS}
    form = filled(clients["superuser"].get(page(model, "change", thing.pk)))
    before = list(model._default_manager.order_by("pk").values())
    for who, client in clients.items():
        rights = RIGHTS[model].get(who, "")
        for right, url, sent in (
            ("c", page(model, "change", thing.pk), form),
            ("d", page(model, "delete", thing.pk), {"post": "yes"}),
            ("a", page(model, "add"), form),
        ):
            if right in rights:
                continue
            with undone():
                answer = client.post(url, sent)
                assert answer.status_code in (302, 403) or who == "rival", (who, url)
                assert list(model._default_manager.order_by("pk").values()) == before, (who, url)


@pytest.mark.parametrize(
    ("who", "outcome"),
    [
        ("anonymous", 302), ("buyer", 302), ("attendee", 302), ("support", 403), ("rival", 404),
        ("ticked", 404), ("manager", 200), ("owner", 200), ("superuser", 200),
    ],
)  # fmt: skip
def test_money_is_sent_back_by_whom_it_should(who: str, outcome: int) -> None:
    world = World()
    client = browser_of(world.people[who])
    url = reverse("admin:purchases_purchase_refund", args=[world.home.purchase.pk])
    assert client.get(url).status_code == outcome
    change = client.get(page(Purchase, "change", world.home.purchase.pk))
    assert (f'href="{url}"' in change.content.decode()) == (outcome == 200)
    client.post(url, {})
    world.home.purchase.refresh_from_db()
    assert (world.home.purchase.status == "refunded") == (outcome == 200)


@pytest.mark.parametrize(
    ("who", "outcome"),
    [
        ("anonymous", 302), ("buyer", 302), ("support", 403), ("rival", 404), ("ticked", 404),
        ("manager", 200), ("owner", 200), ("superuser", 200),
    ],
)  # fmt: skip
def test_times_are_set_and_slots_added_by_whom_it_should(who: str, outcome: int) -> None:
    world = World()
    client = browser_of(world.people[who])
    booking, slot = world.home.booking, world.home.slot
    series = reverse("admin:fulfillment_timeslot_series", args=[slot.offer_id])
    assert client.get(series).status_code == outcome
    url = reverse("admin:fulfillment_servicebooking_time", args=[booking.pk])
    assert client.get(url).status_code == outcome
    change = client.get(page(ServiceBooking, "change", booking.pk))
    assert (f'href="{url}"' in change.content.decode()) == (outcome == 200)
    client.post(url, {"slot": str(slot.pk)})
    booking.refresh_from_db()
    assert (booking.slot_id == slot.pk) == (outcome == 200)


@pytest.mark.parametrize("who", ["owner", "ticked", "superuser"])
def test_pages_about_accounts_and_switches_are_the_superusers(who: str) -> None:
    world = World()
    client = browser_of(world[who])
    for app in ("auth", "waffle"):
        expected = 200 if who == "superuser" else 404
        assert client.get(f"/admin/{app}/").status_code == expected
    url = reverse("admin:auth_user_password_change", args=[world["buyer"].pk])
    assert client.get(url).status_code == (200 if who == "superuser" else 403)
    assert client.get("/admin/").status_code == 200


# -- What members see of others: nothing ----------------------------------------------------------


@every_scoped_model
@pytest.mark.parametrize("who", [*MEMBERS, "superuser"])
def test_nothing_of_another_organization_is_shown(who: str, model: type[models.Model]) -> None:
    world = World()
    client = browser_of(world[who])
    url = page(model, "changelist")
    foreign = world.away.objects[model]
    queries: list[dict[str, Any]] = [{}, {"all": ""}, {"_facets": "True"}]
    if admin.site._registry[model].search_fields:
        # "ival" finds whatever has the word, and isn't it where the page repeats what was sought.
        queries += [{"q": "ival"}, {"q": str(foreign.pk)}]
    if "event" in (admin.site._registry[model].list_filter or ()):
        queries.append({"event__id__exact": str(world.away.event.pk)})
    shown = "".join(client.get(url, query).content.decode() for query in queries)
    assert ("Rival" in shown) == (who == "superuser")
    for name in ("change", "history", "delete"):
        answer = client.get(page(model, name, foreign.pk))
        if who != "superuser":
            assert outcome(answer) in ("gone", "forbidden")
    own = client.get(page(model, "change", world.home.objects[model].pk)).content.decode()
    assert "Rival" not in own


def relations() -> list[tuple[type[models.Model], models.Field]]:
    return [
        (model, field)
        for model in SCOPED
        for field in (*model._meta.fields, *model._meta.many_to_many)
        if field.is_relation and admin.site.is_registered(field.related_model)
    ]


@pytest.mark.parametrize(("model", "field"), relations(), ids=str)
def test_autocomplete_offers_only_ones_own(model: type[models.Model], field: models.Field) -> None:
    world = World()
    url = reverse("admin:autocomplete")
    query = {
        "app_label": model._meta.app_label,
        "model_name": model._meta.model_name,
        "field_name": field.name,
    }
    found = {}
    for who in CALLERS:
        answer = browser_of(world.people[who]).get(url, query | {"term": ""})
        found[who] = answer.json()["results"] if answer.status_code == 200 else answer.status_code
    assert found["anonymous"] == found["buyer"] == 302
    assert found["ticked"] == 403
    if field.related_model is User:
        # Nobody but superusers lists the accounts.
        assert [found[who] for who in (*MEMBERS, "rival")] == [403] * 4
        return
    if isinstance(found["superuser"], int):  # a model without search fields: no autocomplete
        assert found["owner"] == found["superuser"] == 404
        return
    own = [item["text"] for item in found["owner"]]
    assert own
    assert not [text for text in own if "Rival" in text]
    assert not [item["text"] for item in found["rival"] if "Home" in item["text"]]
    assert len(found["superuser"]) > len(own)


def test_filters_by_relations_offer_only_ones_own(rf: Any) -> None:
    world = World()
    request = rf.get("/")
    request.user = world["owner"]
    checked = 0
    for model in SCOPED:
        model_admin = admin.site._registry[model]
        for spec in model_admin.get_list_filter(request):
            if isinstance(spec, type):  # a filter that we wrote, of no field
                continue
            if isinstance(spec, type):
                continue  # a filter of our own, by no field
            name, kind = spec if isinstance(spec, tuple) else (spec, None)
            if get_fields_from_path(model, name)[-1].is_relation:
                assert kind is OwnOnly
                checked += 1
    assert checked


def test_superuser_sees_both_organizations() -> None:
    world = World()
    shown = browser_of(world["superuser"]).get(page(Event, "changelist")).content.decode()
    assert "Rival private" in shown
    assert "Home private" in shown


def test_demos_organizers_use_the_admin_and_its_attendees_do_not() -> None:
    create_demo(now=timezone.now())
    for name, shown in (("organizer", "Demo Conf"), ("rival", "Rival Fest"), ("attendee1", None)):
        client = browser_of(User.objects.get(username=name))
        answer = client.get(page(Event, "changelist"))
        assert answer.status_code == (200 if shown else 302)
        titles = {
            title for title in ("Demo Conf", "Rival Fest") if title in answer.content.decode()
        }
        assert titles == ({shown} if shown else set())
