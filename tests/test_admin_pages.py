"""Every admin page opens, and a form refuses what the API would refuse, beside the field."""

import html
import re
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import waffle
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.db import models, transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from waffle.models import Sample

from fulfillment import queue
from fulfillment.digital.models import AccessCode
from offers import inventory, staff_log
from offers.models import Event, Membership, Offer, Organization, Registration
from purchases import mail
from purchases.bulk import jobs, kinds
from purchases.models import Email, StripeEvent, WebhookEndpoint
from purchases.states import Status
from purchases.subscribers import publishing
from tests.conftest import at_once, blocked_backends, counters
from tests.factories import (
    DisputeFactory,
    EventFactory,
    EventSessionFactory,
    MembershipFactory,
    OfferFactory,
    PurchaseFactory,
    RegistrationFactory,
    TicketTierFactory,
    TimeSlotFactory,
    UserFactory,
    make_fulfillment,
)
from tests.ticket_upgrades import upgrade

pytestmark = pytest.mark.django_db

MODELS = sorted(admin.site._registry, key=lambda model: model._meta.label)
every_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: model._meta.label)


@pytest.fixture
def staff() -> Client:
    client = Client()
    client.force_login(UserFactory(is_staff=True, is_superuser=True))
    return client


@pytest.fixture
def one_of_each() -> None:
    """Some of everything, as it comes about: new models with an admin page belong in here."""
    registration = RegistrationFactory()
    registration.sessions.add(EventSessionFactory(event=registration.event))
    MembershipFactory(organization=registration.event.organization)
    sold = PurchaseFactory(offer__event=registration.event, status=Status.PAID)
    queue.deliver_one(sold.pk, now=timezone.now())
    StripeEvent.objects.create(
        id="evt_1",
        type="checkout.session.completed",
        created=timezone.now(),
        received_at=timezone.now(),
        due_at=timezone.now(),
        payload={"id": "evt_1"},
    )
    upgrade(registration, TicketTierFactory(event=registration.event))
    purchase = PurchaseFactory(status=Status.REFUNDING)
    DisputeFactory(purchase=purchase)
    chosen = kinds.of("refund").objects().filter(pk=purchase.pk)
    job = jobs.draft(kinds.of("refund"), chosen, actor=purchase.user, now=timezone.now())
    jobs.start(job, parameters={}, now=timezone.now())
    make_fulfillment()
    AccessCode.objects.create(offer=purchase.offer, code="A1")
    mail.enqueue(purchase, Email.Occasion.LATE_PAYMENT, now=timezone.now())
    endpoint = WebhookEndpoint.objects.create(
        organization=registration.event.organization, url="http://127.0.0.1:9/hook"
    )
    publishing.ping(endpoint.pk, now=timezone.now())
    slot = TimeSlotFactory()
    service = PurchaseFactory(offer=slot.offer, status=Status.PAID)
    queue.deliver_one(service.pk, now=timezone.now())
    Group.objects.create(name="Box office")
    staff_log.record(User.objects.first(), slot.offer, message="Looked after.")
    waffle.get_waffle_switch_model().objects.get_or_create(name="purchases")
    waffle.get_waffle_flag_model().objects.create(name="flag")
    Sample.objects.create(name="sample", percent=50)


def page(model: type[models.Model], name: str, *args: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{name}", args=args)


@every_model
def test_list_opens(staff: Client, one_of_each: None, model: type[models.Model]) -> None:
    answer = staff.get(page(model, "changelist"))
    assert answer.status_code == 200
    if admin.site._registry[model].search_fields:
        sought = "no id, a quote', 100% and a\x00"
        assert staff.get(page(model, "changelist"), {"q": sought}).status_code == 200


@every_model
def test_add_page_opens_where_something_can_be_added(
    staff: Client, rf: Any, model: type[models.Model]
) -> None:
    request = rf.get("/")
    request.user = User.objects.get()
    allowed = admin.site._registry[model].has_add_permission(request)
    assert staff.get(page(model, "add")).status_code == (200 if allowed else 403)


@every_model
def test_change_page_opens(staff: Client, one_of_each: None, model: type[models.Model]) -> None:
    instance = model._default_manager.first()
    assert instance, f"{model._meta.label} has an admin page: make one in `one_of_each`."
    assert staff.get(page(model, "change", instance.pk)).status_code == 200


def test_index_opens_for_staff_only(staff: Client) -> None:
    assert staff.get(reverse("admin:index")).status_code == 200
    stranger = Client()
    stranger.force_login(UserFactory())
    for client in (stranger, Client()):
        answer = client.get(reverse("admin:index"))
        assert (answer.status_code, answer.headers["Location"][:13]) == (302, "/admin/login/")


def test_our_models_that_people_work_with_have_a_page() -> None:
    assert {Offer, Event, Organization, Registration, Membership} <= set(MODELS)


def test_changelists_take_as_many_queries_for_many_rows(
    staff: Client, django_assert_max_num_queries: Callable[..., Any]
) -> None:
    PurchaseFactory.create_batch(30, status=Status.PAID)
    for model in (Offer, PurchaseFactory._meta.model, Event):
        with django_assert_max_num_queries(15):
            assert staff.get(page(model, "changelist")).status_code == 200


def test_offers_and_purchases_are_never_deleted(staff: Client) -> None:
    purchase = PurchaseFactory(status=Status.PAID)
    for instance in (purchase, purchase.offer):
        answer = staff.post(page(type(instance), "delete", instance.pk), {"post": "yes"})
        assert answer.status_code == 403
        instance.refresh_from_db()


def linked(what: str) -> tuple[Any, models.Model]:
    """A session or tier, and what it is the only one of."""
    if what == "registration":
        session = EventSessionFactory()
        registration = RegistrationFactory(event=session.event)
        registration.sessions.add(session)
        return session, registration
    target = EventSessionFactory() if what == "session" else TicketTierFactory()
    offer = OfferFactory(event=target.event, title="Hoodie")
    (offer.target_sessions if what == "session" else offer.target_ticket_tiers).add(target)
    return target, offer


@pytest.mark.parametrize("what", ["session", "tier", "registration"])
def test_what_an_offer_targets_or_a_registration_is_for_is_not_deleted(
    staff: Client, what: str
) -> None:
    """Without its only one it would be for everybody, or for every session."""
    target, owner = linked(what)
    model, event = type(target), target.event
    with pytest.raises(models.ProtectedError):
        model.objects.filter(pk=target.pk).delete()
    chosen = {"action": "delete_selected", "_selected_action": [target.pk], "post": "yes"}
    prefix = "ticket_tiers" if what == "tier" else "sessions"
    row = {f"{prefix}-0-{field}": getattr(target, field) for field in ("id", "title", "slug")}
    form = {"organization": event.organization_id, "title": event.title, "slug": event.slug}
    for inline in ("sessions", "ticket_tiers"):
        rows = 1 if inline == prefix else 0
        form |= {f"{inline}-TOTAL_FORMS": rows, f"{inline}-INITIAL_FORMS": rows}
    form |= row | {f"{prefix}-0-event": event.pk, f"{prefix}-0-DELETE": "on"}
    for address, sent in (
        (page(model, "delete", target.pk), {"post": "yes"}),
        (page(model, "changelist"), chosen),
        (page(Event, "change", event.pk), form),
    ):
        answer = staff.post(address, sent)
        assert answer.status_code == 200
        text = " ".join(re.sub(r"<[^>]+>", " ", html.unescape(answer.content.decode())).split())
        assert re.search(rf"protected related objects: \w+:? {re.escape(str(owner))}", text)
    target.refresh_from_db()

    owner.delete()
    assert staff.post(page(model, "delete", target.pk), {"post": "yes"}).status_code == 302
    assert not model.objects.filter(pk=target.pk).exists()


@pytest.mark.parametrize("status", [Status.AWAITING_PAYMENT, Status.PAID])
def test_purchase_can_not_be_edited(staff: Client, status: Status) -> None:
    purchase = PurchaseFactory(status=status)
    address = page(type(purchase), "change", purchase.pk)
    assert staff.post(address, {"status": "refunded", "quantity": 9}).status_code == 403
    purchase.refresh_from_db()
    assert (purchase.status, purchase.quantity) == (status, 1)


# -- The form of an offer -------------------------------------------------------------------------


def opened(client: Client, offer: Offer | None = None) -> dict[str, Any]:
    """What the browser would send back if the form were saved as it was opened."""
    address = page(Offer, "change", offer.pk) if offer else page(Offer, "add")
    form = client.get(address).context["adminform"].form
    sent: dict[str, Any] = {}
    for bound in form:
        value = bound.value()
        widget = bound.field.widget
        if hasattr(widget, "widgets"):  # date and time, side by side
            parts = widget.decompress(value)
            texts = [
                part.strftime(f) if part else ""
                for part, f in zip(parts, ("%Y-%m-%d", "%H:%M:%S"), strict=True)
            ]
            sent |= {f"{bound.name}_{i}": text for i, text in enumerate(texts)}
        elif isinstance(value, list):
            sent[bound.name] = [getattr(item, "pk", item) for item in value]
        elif value is True:
            sent[bound.name] = "on"
        elif value is not None and value is not False:
            sent[bound.name] = value
    return sent


def save(client: Client, offer: Offer | None, sent: dict[str, Any]) -> dict[str, list[str]]:
    """Send the form; the errors beside its fields, none if it was saved."""
    address = page(Offer, "change", offer.pk) if offer else page(Offer, "add")
    answer = client.post(address, sent)
    if answer.status_code == 302:
        return {}
    assert answer.status_code == 200
    errors = answer.context["adminform"].form.errors
    assert errors
    shown = html.unescape(answer.content.decode())
    assert all(message in shown for messages in errors.values() for message in messages)
    return dict(errors)


def test_form_saved_as_it_was_opened_changes_nothing(staff: Client) -> None:
    now = timezone.now().replace(microsecond=0)
    offer = OfferFactory(starts_at=now, expires_at=now + timedelta(days=1), max_per_user=2)
    offer.target_ticket_tiers.add(TicketTierFactory(event=offer.event))
    ignored = {"updated_at", "catalog_version", "catalog_sync_after"}
    before = Offer.objects.values().get()

    assert save(staff, offer, opened(staff, offer)) == {}

    after = Offer.objects.values().get()
    assert {field for field in after if after[field] != before[field]} <= ignored
    assert offer.target_ticket_tiers.count() == 1


def test_offer_is_made_with_its_stock(staff: Client) -> None:
    event = EventFactory()
    sent = opened(staff) | {
        "event": event.pk, "title": "A mug", "offer_type": "MERCHANDISE", "price": "12.50",
        "currency": "EUR", "inventory_total": 7,
    }  # fmt: skip
    assert save(staff, None, sent) == {}
    offer = Offer.objects.get()
    assert (offer.title, offer.inventory_total, offer.is_active) == ("A mug", 7, True)
    assert counters(offer) == (0, 0)


@pytest.mark.parametrize("total", [4, 0])
def test_total_below_what_is_committed_is_an_error_beside_the_field(
    staff: Client, total: int
) -> None:
    offer = OfferFactory(inventory_total=10)
    PurchaseFactory(offer=offer, quantity=2)
    PurchaseFactory(offer=offer, quantity=3, status=Status.PAID)

    errors = save(staff, offer, opened(staff, offer) | {"inventory_total": total, "title": "New"})

    assert set(errors) == {"inventory_total"}
    assert "5 units" in errors["inventory_total"][0]
    offer.refresh_from_db()
    assert offer.inventory_total == 10
    assert offer.title != "New"


@pytest.mark.parametrize(("sent", "stored"), [(5, 5), (500, 500), ("", None)])
def test_total_is_changed_down_to_what_is_committed(
    staff: Client, sent: Any, stored: int | None
) -> None:
    offer = OfferFactory(inventory_total=10)
    PurchaseFactory(offer=offer, quantity=5)
    assert save(staff, offer, opened(staff, offer) | {"inventory_total": sent}) == {}
    assert counters(offer) == (5, 0)
    assert offer.inventory_total == stored


def test_form_opened_before_a_sale_writes_no_old_counters_back(staff: Client) -> None:
    offer = OfferFactory(inventory_total=10)
    form = opened(staff, offer)
    PurchaseFactory(offer=offer, quantity=2)
    PurchaseFactory(offer=offer, quantity=3, status=Status.PAID)

    assert save(staff, offer, form | {"title": "New"}) == {}

    assert counters(offer) == (2, 3)
    assert (offer.title, offer.inventory_total) == ("New", 10)


def test_counters_can_not_be_sent(staff: Client) -> None:
    offer = OfferFactory()
    PurchaseFactory(offer=offer, quantity=2)
    form = opened(staff, offer)
    assert not {"inventory_reserved", "inventory_sold"} & set(form)
    assert save(staff, offer, form | {"inventory_reserved": 0, "inventory_sold": 9}) == {}
    assert counters(offer) == (2, 0)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({"inventory_total": 3}, {"inventory_total"}),
        ({"price": "60"}, {"price"}),
        ({"title": "New"}, set()),
    ],
    ids=["total", "price", "title"],
)
def test_form_is_judged_by_what_was_sold_while_it_was_saved(
    staff: Client, change: dict[str, Any], fields: set[str]
) -> None:
    """The form arrives while a sale holds the row, which is committed a moment later."""
    offer = OfferFactory(inventory_total=10)
    form = opened(staff, offer) | change
    answers: list[Any] = []

    with transaction.atomic():
        inventory.lock(offer.pk)
        saving = threading.Thread(
            target=lambda: answers.extend(at_once([lambda: save(staff, offer, form)]))
        )
        saving.start()
        while not blocked_backends():
            assert saving.is_alive(), answers
        PurchaseFactory(offer=offer, quantity=4, status=Status.PAID)
    saving.join()

    assert isinstance(answers[0], dict), answers
    assert set(answers[0]) == fields
    assert counters(offer) == (0, 4)
    assert (offer.inventory_total, offer.price) == (10, 50)


@pytest.mark.parametrize("sent", [{"price": "49"}, {"currency": "EUR"}], ids=str)
def test_price_stands_once_something_is_sold(staff: Client, sent: dict[str, str]) -> None:
    offer = OfferFactory()
    PurchaseFactory(offer=offer, status=Status.PAID)
    errors = save(staff, offer, opened(staff, offer) | sent)
    assert set(errors) == set(sent)
    offer.refresh_from_db()
    assert (offer.price, offer.currency) == (50, "USD")


@pytest.mark.parametrize("is_new", [True, False], ids=["new", "stored"])
def test_targets_of_another_event_are_errors_beside_their_fields(
    staff: Client, is_new: bool
) -> None:
    offer = OfferFactory()
    form = opened(staff, offer) | {
        "target_sessions": [EventSessionFactory().pk],
        "target_ticket_tiers": [TicketTierFactory().pk],
    }
    errors = save(staff, None if is_new else offer, form)
    assert set(errors) == {"target_sessions", "target_ticket_tiers"}
    assert Offer.objects.count() == 1
    assert not offer.target_sessions.exists()


def test_offer_does_not_move_to_another_event(staff: Client) -> None:
    offer = OfferFactory()
    other = EventFactory(organization=offer.event.organization)
    assert set(save(staff, offer, opened(staff, offer) | {"event": other.pk})) == {"event"}


@pytest.mark.parametrize(
    ("wrong", "fields"),
    [
        pytest.param(
            {"title": "", "price": "-1", "max_per_user": "0", "inventory_total": "-1"},
            {"title", "price", "max_per_user", "inventory_total"},
            id="too little",
        ),
        pytest.param(
            {"price": "", "inventory_total": str(2**31), "image_url": "javascript:x"},
            {"price", "inventory_total", "image_url"},
            id="nothing, too much, no address",
        ),
        pytest.param(
            {
                "price": "12.505", "original_price": "12",
                "starts_at_0": "2030-01-02", "starts_at_1": "00:00:00",
                "expires_at_0": "2030-01-01", "expires_at_1": "00:00:00",
            },
            {"price", "original_price", "expires_at"},
            id="several fields together",
        ),
        pytest.param({"price": "0.49"}, {"price"}, id="less than Stripe charges"),
        pytest.param({"currency": "XXX"}, {"currency"}, id="unknown currency"),
    ],
)  # fmt: skip
def test_form_that_makes_no_sense_says_so_beside_each_field(
    staff: Client, wrong: dict[str, str], fields: set[str]
) -> None:
    offer = OfferFactory()
    before = Offer.objects.values().get()
    assert set(save(staff, offer, opened(staff, offer) | wrong)) == fields
    assert Offer.objects.values().get() == before


def test_registration_for_another_events_tier_is_an_error_beside_the_field(staff: Client) -> None:
    registration = RegistrationFactory()
    sent = {
        "user": registration.user.username,
        "event": registration.event_id,
        "ticket_tier": TicketTierFactory().pk,
    }
    answer = staff.post(page(Registration, "change", registration.pk), sent)
    assert answer.status_code == 200
    assert set(answer.context["adminform"].form.errors) == {"ticket_tier"}


def test_registration_for_another_events_sessions_is_an_error_beside_the_field(
    staff: Client,
) -> None:
    registration = RegistrationFactory()
    sent = {
        "user": registration.user.username,
        "event": registration.event_id,
        "ticket_tier": registration.ticket_tier_id,
        "sessions": [EventSessionFactory().pk],
    }
    answer = staff.post(page(Registration, "change", registration.pk), sent)
    assert answer.status_code == 200
    assert set(answer.context["adminform"].form.errors) == {"sessions"}


@pytest.mark.django_db
@pytest.mark.parametrize("make", [EventSessionFactory, TicketTierFactory])
def test_session_and_tier_stay_those_of_their_event(admin_client: Client, make: Any) -> None:
    """Offers and registrations of the event refer to them."""
    thing, other = make(), EventFactory()
    page = reverse(f"admin:offers_{thing._meta.model_name}_change", args=[thing.pk])
    sent = {"event": other.pk, "title": "Renamed", "slug": thing.slug}
    assert admin_client.post(page, sent).status_code == 302
    changed = type(thing).objects.get()
    assert (changed.title, changed.event_id) == ("Renamed", thing.event_id)
