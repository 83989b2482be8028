"""PostgreSQL picks our indexes by itself, for the statements that the code really sends."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from unittest import mock
from uuid import uuid4

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.db import connection, transaction
from django.db.models import QuerySet
from django.test.utils import CaptureQueriesContext
from rest_framework.request import Request
from rest_framework.test import APIRequestFactory, force_authenticate

from fulfillment import queue
from fulfillment.bookings.models import ServiceBooking, TimeSlot
from fulfillment.models import Fulfillment
from fulfillment.states import Status as Delivered
from fulfillment.states import Type
from offers import catalog, inventory, targeting
from offers.impressions import Impression
from offers.listed_offers import ListedOffers
from offers.models import Event, Offer
from offers.targeting import Place
from offers_project.back_office.dashboard import funnel, health, sales, waiting
from offers_project.back_office.dashboard.period import Period
from offers_project.back_office.dashboard.scope import Scope
from offers_project.monitoring import waiting as monitored
from purchases import admission, holds, payments, refunds, webhooks
from purchases.models import (
    BulkItem,
    BulkJob,
    Purchase,
    Refund,
    StripeEvent,
    WebhookDelivery,
    WebhookEndpoint,
)
from purchases.states import ReleaseReason, Status
from purchases.stripe_objects import CheckoutSession
from purchases.subscribers import deliveries
from purchases.viewsets import PurchaseViewSet
from tests.factories import EventFactory, OfferFactory

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
EVENTS, OFFERS_EACH, USERS, PURCHASES = 40, 90, 400, 6_000
# All open holds are of the buyers whose number is a multiple of 50.
BUYER_WITHOUT_HOLDS = "buyer7"


@pytest.fixture(scope="module", autouse=True)
def a_busy_year(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """Rows in the proportions of a service in use: most offers are over, most purchases paid.

    Loaded once and rolled back after the module's last test, which all only ask for plans.
    """
    with django_db_blocker.unblock():
        with transaction.atomic():
            load()
            with connection.cursor() as cursor:
                cursor.execute("ANALYZE")
            yield
            transaction.set_rollback(True)
        connection.close()


def load() -> None:
    organization = EventFactory().organization
    events = Event.objects.bulk_create(EventFactory.build_batch(EVENTS, organization=organization))
    users = User.objects.bulk_create(User(username=f"buyer{n}") for n in range(USERS))
    offers = Offer.objects.bulk_create(
        OfferFactory.build(
            event=events[n % EVENTS],
            inventory_total=None,
            # Of an event's offers one in six is on sale; three in a thousand are just over.
            is_active=n // EVENTS % 3 == 0,
            is_archived=n // EVENTS % 2 == 0,
            expires_at=NOW + timedelta(hours=n % 331 - 1) if n // EVENTS % 3 == 0 else None,
            stripe_price_id=f"price_{n}",
        )
        for n in range(EVENTS * OFFERS_EACH)
    )
    Purchase.objects.bulk_create(
        (purchase(n, users[n * 7 % USERS], offers[n * n % len(offers)]) for n in range(PURCHASES)),
        batch_size=2_000,
    )
    paid = Purchase.objects.filter(status=Status.PAID).order_by("checkout_session_id")[:2_000]
    Refund.objects.bulk_create(refund(n, purchase) for n, purchase in enumerate(paid))
    StripeEvent.objects.bulk_create(map(event, range(3_000)))
    sold = Purchase.objects.filter(status=Status.PAID).order_by("checkout_session_id")
    fulfillments = Fulfillment.objects.bulk_create(
        fulfillment(n, each) for n, each in enumerate(sold)
    )
    load_bookings(offers, fulfillments)
    Impression.objects.bulk_create(
        Impression(
            offer=offer, placement=offer.placement, day=NOW.date() - timedelta(days=day), seen=1
        )
        for offer in offers[::9]
        for day in range(60)
    )
    endpoints = WebhookEndpoint.objects.bulk_create(
        WebhookEndpoint(organization=organization, due_at=NOW) for _ in range(20)
    )
    WebhookDelivery.objects.bulk_create(
        delivery(n, endpoints[n % len(endpoints)]) for n in range(3_000)
    )
    load_bulk_jobs()


def load_bulk_jobs() -> None:
    """One of 20 is at work."""
    jobs = BulkJob.objects.bulk_create(
        BulkJob(
            kind="x", asked_at=NOW, started_at=NOW, finished_at=NOW if n else None, due_at=NOW,
            total=150,
        )
        for n in range(20)
    )  # fmt: skip
    BulkItem.objects.bulk_create(
        BulkItem(job=job, object_id=uuid4(), state="done", settled_at=NOW, due_at=NOW)
        for job in jobs
        for _ in range(150)
    )


def load_bookings(offers: list[Offer], fulfillments: list[Fulfillment]) -> None:
    """A slot an hour, most of them over, with a booking of each."""
    hours = [NOW + timedelta(hours=n - 1_500) for n in range(2_000)]
    slots = TimeSlot.objects.bulk_create(
        TimeSlot(
            offer=offers[n % len(offers)],
            starts_at=hour,
            ends_at=hour + timedelta(minutes=30),
            capacity=3,
            taken=1,
        )
        for n, hour in enumerate(hours)
    )
    ServiceBooking.objects.bulk_create(
        ServiceBooking(
            fulfillment=each,
            slot=slot,
            scheduled_at=slot.starts_at,
            ends_at=slot.ends_at,
            can_change_until=slot.starts_at,
            created_at=NOW,
            changed_at=NOW,
        )
        for each, slot in zip(fulfillments, slots, strict=False)
    )


def bought_by(username: str) -> Purchase:
    """One of that buyer's. Keys are random, so the first by its key would be anybody's."""
    purchases = Purchase.objects.select_related("user", "offer", "event")
    return purchases.filter(user__username=username)[0]


def purchase(n: int, user: User, offer: Offer) -> Purchase:
    """One in 50 is an open hold, one in five was given back, the rest is paid."""
    made = NOW - timedelta(minutes=n)
    status = Status.PAID
    if n % 50 == 0:
        status, made = Status.AWAITING_PAYMENT, NOW - timedelta(minutes=n % 20)
    elif n % 5 == 0:
        status = Status.RELEASED
    return Purchase(
        user=user,
        offer=offer,
        event_id=offer.event_id,
        offer_title=offer.title,
        quantity=1,
        unit_price=Decimal(50),
        total_price=Decimal(50),
        currency="USD",
        status=status,
        release_reason=ReleaseReason.EXPIRED if status == Status.RELEASED else "",
        created_at=made,
        paid_at=made if status == Status.PAID else None,
        reserved_until=made + timedelta(minutes=15),
        checkout_session_id=f"cs_test_{n}",
        payment_intent_id=f"pi_{n}" if status == Status.PAID else "",
    )


def refund(n: int, purchase: Purchase) -> Refund:
    """One in 50 is under way, one in 400 failed."""
    state = Refund.State.PENDING if n % 50 == 0 else Refund.State.SUCCEEDED
    if n % 400 == 3:
        state = Refund.State.FAILED
    return Refund(
        purchase=purchase,
        payment_intent_id=purchase.payment_intent_id,
        amount=Decimal(1),
        state=state,
        cause=Refund.Cause.STAFF,
        stripe_refund_id=f"re_{n}",
        created_at=NOW - timedelta(hours=n),
        due_at=NOW,
        settled_at=None if n % 50 == 0 else NOW - timedelta(hours=n),
    )


def fulfillment(n: int, purchase: Purchase) -> Fulfillment:
    """One in 50 is to be delivered, one in 500 is of a type that is broken."""
    waits = n % 50 == 0
    return Fulfillment(
        purchase=purchase,
        type=Type.DIGITAL,
        status=Delivered.PENDING if waits else Delivered.FULFILLED,
        due_at=NOW if waits else None,
        is_stalled=n % 500 == 0,
        paid_at=NOW - timedelta(minutes=n),
        created_at=NOW,
        fulfilled_at=None if waits else NOW,
    )


def event(n: int) -> StripeEvent:
    """One in 100 failed."""
    return StripeEvent(
        id=f"evt_{n}",
        type="charge.refunded",
        created=NOW,
        payload={},
        state=StripeEvent.State.FAILED if n % 100 == 0 else StripeEvent.State.PROCESSED,
        received_at=NOW - timedelta(minutes=n),
        due_at=NOW,
    )


def delivery(n: int, endpoint: WebhookEndpoint) -> WebhookDelivery:
    """One in 100 is on its way."""
    is_waiting = n % 100 == 0
    return WebhookDelivery(
        endpoint=endpoint,
        key=str(n),
        type="purchase.paid",
        payload={},
        state="waiting" if is_waiting else "delivered",
        delivered_at=None if is_waiting else NOW,
        created_at=NOW,
        due_at=NOW,
    )


def indexes_in(plan: Any) -> set[str]:
    """The names of all indexes in a plan of PostgreSQL's, with the tables it reads otherwise."""
    if isinstance(plan, list):
        return set().union(*map(indexes_in, plan)) if plan else set()
    if not isinstance(plan, dict):
        return set()
    found = {plan["Index Name"]} if "Index Name" in plan else set()
    if plan.get("Node Type") == "Seq Scan":
        found.add(f"all of {plan['Relation Name']}")
    return found.union(*map(indexes_in, plan.values()))


def explained(sql: str, parameters: Any = ()) -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (FORMAT JSON) {sql}", parameters)
        plan = cursor.fetchone()[0]
    return indexes_in(json.loads(plan) if isinstance(plan, str) else plan)


def plan_of(queryset: QuerySet) -> set[str]:
    return explained(*queryset.query.sql_with_params())


def plans_of(call: Any, table: str, start: str = "SELECT") -> list[set[str]]:
    """The plans of the statements about ``table`` that ``call`` sends."""
    plans = []

    def explain_first(execute: Any, sql: str, params: Any, many: Any, context: Any) -> Any:
        if sql.startswith(start) and f'"{table}"' in sql:
            with (
                connection.cursor() as cursor,
                mock.patch.object(connection, "execute_wrappers", []),
            ):
                cursor.execute(f"EXPLAIN (FORMAT JSON) {sql}", params)
                plan = cursor.fetchone()[0]
            plans.append(indexes_in(json.loads(plan) if isinstance(plan, str) else plan))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(explain_first):
        call()
    return plans


def indexes_on(model: Any, column: str) -> set[str]:
    """The unique index on a column, and the copy with `_like` in its name that Django adds to it.

    For ``=`` they are worth the same to the planner, which takes either.
    """
    with connection.cursor() as cursor:
        constraints = connection.introspection.get_constraints(cursor, model._meta.db_table)
    on_it = {name: c for name, c in constraints.items() if c["columns"] == [column]}
    assert any(constraint["unique"] for constraint in on_it.values())
    return set(on_it)


# -- Metrics --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("queue", "table"),
    [
        ("holds", "purchases_purchase"),
        ("events", "purchases_stripeevent"),
        ("fulfilments", "purchases_purchase"),
        ("fulfilments", "fulfillment_fulfillment"),
        ("refunds", "purchases_refund"),
        ("subscribers", "purchases_webhookdelivery"),
        ("bulk", "purchases_bulkitem"),
    ],
)
def test_what_a_scrape_asks_of_a_queue_reads_no_whole_table(queue: str, table: str) -> None:
    plans = plans_of(lambda: monitored.QUEUES[queue](NOW), table)
    assert plans
    assert [plan for plan in plans if f"all of {table}" in plan] == []


# -- Offers ---------------------------------------------------------------------------------------


def test_offers_of_an_event_are_found_by_event_and_state() -> None:
    event = Event.objects.order_by("slug").last()
    found = plan_of(catalog.on_display(targeting.offers_for(AnonymousUser(), event), NOW))
    assert found & {"offer_by_event", "offer_newest_on_sale"}
    assert "all of offers_offer" not in found


def test_page_of_the_list_is_read_in_the_order_of_its_index() -> None:
    event = EventFactory()
    Offer.objects.bulk_create(OfferFactory.build_batch(3_000, event=event))
    position = str(Offer.objects.filter(event=event)[1_500].created_at)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE offers_offer")
    for place in (None, Place(ticket_tier=1, sessions=frozenset({1, 2}))):
        offers = ListedOffers(event.pk, place, NOW)
        newest, oldest = (offers.order_by(f"{o}created_at", f"{o}id") for o in ("-", ""))
        for listed in (
            *(newest, newest.filter(created_at__lt=position)),
            *(oldest, oldest.filter(created_at__gt=position)),
        ):
            with CaptureQueriesContext(connection) as queries:
                assert len(listed[0:51]) == 51
            with connection.cursor() as cursor:
                cursor.execute(f"EXPLAIN {queries.captured_queries[0]['sql']}")
                plan = "\n".join(line for (line,) in cursor)
            assert "offer_newest_on_sale on" in plan
            assert "Sort" not in plan


def test_offers_whose_sale_has_ended_are_found_by_expiry() -> None:
    (counted,) = plans_of(lambda: catalog.expire(now=NOW, dry_run=True), "offers_offer")
    assert counted == {"offer_by_expiry"}
    with transaction.atomic():
        found, *_ = plans_of(lambda: catalog.expire(now=NOW), "offers_offer")
        transaction.set_rollback(True)
    assert found == {"offer_by_expiry"}


def test_offer_is_found_by_its_price_at_stripe() -> None:
    found = plan_of(Offer.objects.filter(stripe_price_id="price_77"))
    assert len(found) == 1
    assert found <= indexes_on(Offer, "stripe_price_id")


# -- Purchases ------------------------------------------------------------------------------------


def view_for(user: User, **query: str) -> PurchaseViewSet:
    request = APIRequestFactory().get("/", query)
    force_authenticate(request, user)
    view = PurchaseViewSet()
    view.setup(request)
    view.action = "list"
    view.request = Request(request)
    view.request.user = user
    return view


def test_purchases_of_a_buyer_at_an_event_are_found_by_both() -> None:
    bought = bought_by(BUYER_WITHOUT_HOLDS)
    view = view_for(bought.user, event=bought.event.slug)
    found = plan_of(view.get_queryset().order_by("-created_at", "-id")[:51])
    assert "purchase_by_buyer" in found
    assert "all of purchases_purchase" not in found


def test_purchases_of_a_buyer_are_found_without_reading_all() -> None:
    user = bought_by(BUYER_WITHOUT_HOLDS).user
    found = plan_of(view_for(user).get_queryset().order_by("-created_at", "-id")[:51])
    assert "all of purchases_purchase" not in found


def test_open_holds_of_an_offer_are_found_by_offer_and_status() -> None:
    offer = Offer.objects.filter(purchases__isnull=False).first()
    found = plan_of(holds.open_holds().filter(offer_id=offer.pk))
    assert found == {"purchase_by_offer"}


def test_overdue_holds_are_found_by_their_deadline() -> None:
    found = plan_of(holds.overdue(now=NOW))
    assert "purchase_by_deadline" in found
    assert "all of purchases_purchase" not in found
    # What the sweep asks for: the oldest 500 of them.
    swept = plan_of(holds.overdue(now=NOW).order_by("reserved_until")[:500].values("pk"))
    assert "purchase_by_deadline" in swept
    assert "all of purchases_purchase" not in swept


def session(session_id: str) -> CheckoutSession:
    stamp = int(NOW.timestamp())
    return CheckoutSession.parse(
        {
            "id": session_id, "status": "open", "payment_status": "unpaid", "created": stamp,
            "expires_at": stamp, "livemode": False,
        }
    )  # fmt: skip


def test_purchase_is_found_by_its_checkout_session() -> None:
    (found,) = plans_of(lambda: payments.purchase_of(session("cs_test_77")), "purchases_purchase")
    assert len(found) == 1
    assert found <= indexes_on(Purchase, "checkout_session_id")
    assert payments.purchase_of(session("cs_test_77")) is not None


def test_purchase_is_found_by_its_payment() -> None:
    paid = Purchase.objects.filter(status=Status.PAID)[0]
    (found,) = plans_of(
        lambda: refunds.purchase_of_payment(paid.payment_intent_id), "purchases_purchase"
    )
    assert found == {"purchase_by_payment"}


def test_refund_of_a_second_payment_is_found_by_it() -> None:
    plans = plans_of(lambda: refunds.purchase_of_payment("pi_second"), "purchases_refund")
    assert len(plans) == 1
    assert "refund_by_payment" in plans[0]
    assert not any(name.startswith("all of") for name in plans[0])


def test_refunds_under_way_are_found_by_when_they_are_due() -> None:
    found = plan_of(refunds.due(now=NOW)[:1])
    assert found == {"refund_unsettled"}


def test_events_to_process_are_found_by_when_they_are_due() -> None:
    found = plan_of(webhooks.unprocessed(now=NOW))
    assert found == {"stripe_event_unprocessed"}


def test_webhooks_to_deliver_are_found_by_when_they_are_due() -> None:
    found = plan_of(deliveries._endpoints_due(NOW)[:1])
    assert "webhook_unsent" in found
    assert "all of purchases_webhookdelivery" not in found
    endpoint = WebhookEndpoint.objects.order_by("pk")[0]
    assert plan_of(deliveries._due(NOW).filter(endpoint=endpoint)) == {"webhook_unsent"}


def test_what_is_to_be_delivered_is_found_in_the_order_of_payment() -> None:
    assert plan_of(queue.due(now=NOW)[:1]) == {"fulfillment_queue"}


def test_stalled_deliveries_are_found_without_reading_the_others() -> None:
    assert plan_of(queue._stalled(Type.DIGITAL)[:1]) == {"fulfillment_stalled"}


def test_purchases_that_fulfillment_has_to_hear_of_are_found_by_their_flag() -> None:
    news = Purchase.objects.filter(fulfillment_due=True).order_by("paid_at")[:1]
    assert plan_of(news) == {"purchase_news_for_fulfillment"}


def test_newest_fulfillments_are_listed_without_reading_all() -> None:
    assert plan_of(Fulfillment.objects.order_by("-paid_at")[:100]) == {"fulfillment_by_payment"}


def test_cap_and_limit_of_a_buyer_are_checked_without_reading_all_purchases() -> None:
    bought = bought_by(BUYER_WITHOUT_HOLDS)
    bought.offer.max_per_user = 1_000

    def check() -> None:
        admission.admit(bought.user, bought.offer, 1, "a-key")
        admission.made_with(bought.user, "a-key")

    plans = plans_of(check, "purchases_purchase")
    assert len(plans) == 2
    for plan in plans:
        assert plan
        assert "all of purchases_purchase" not in plan


# -- The back-office ------------------------------------------------------------------------------

EVERYBODYS = Scope(None)
A_DAY = Period.lately(1, today=NOW.date())


@pytest.mark.parametrize(
    ("listed", "index"),
    [
        (Purchase.objects.order_by("-created_at", "-id"), "purchase_newest"),
        (Refund.objects.order_by("-created_at"), "refund_newest"),
        (Refund.objects.filter(state=Refund.State.FAILED), "refund_failed"),
        (StripeEvent.objects.order_by("-received_at"), "stripe_event_newest"),
        (TimeSlot.objects.order_by("starts_at"), "slot_by_time"),
        (ServiceBooking.objects.order_by("scheduled_at", "pk"), "booking_by_time"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_first_page_of_a_list_is_read_without_reading_all(listed: QuerySet, index: str) -> None:
    assert plan_of(listed.values("pk")[:50]) == {index}


def test_newest_purchases_of_an_event_are_found_by_it() -> None:
    event = Event.objects.order_by("slug").last()
    own = Purchase.objects.filter(event=event).order_by("-created_at", "-id")
    assert plan_of(own.values("pk")[:50]) == {"purchase_by_event"}


def test_sales_of_a_day_are_summed_up_from_an_index() -> None:
    paid, back = plans_of(lambda: sales.of(EVERYBODYS, A_DAY), "purchases_purchase")
    assert paid == {"purchase_by_payment_time"}
    assert "refund_by_settlement" in back
    assert "all of purchases_purchase" not in back


def test_showings_of_a_day_are_summed_up_from_an_index() -> None:
    (found,) = plans_of(lambda: funnel.table(EVERYBODYS, A_DAY), "offers_impression")
    assert found == {"impression_by_day"}


def test_purchases_with_a_problem_are_counted_without_reading_the_others() -> None:
    (found,) = plans_of(lambda: waiting.problems(EVERYBODYS), "purchases_purchase")
    assert found == {"purchase_with_problem"}


def test_fulfilments_under_way_are_counted_from_an_index() -> None:
    (found,) = plans_of(lambda: waiting.fulfilments(EVERYBODYS), "fulfillment_fulfillment")
    assert found == {"fulfillment_by_status"}


def test_stripe_events_that_are_stuck_are_counted_without_reading_the_others() -> None:
    (counted,) = plans_of(lambda: health._events(NOW), "purchases_stripeevent", start="(SELECT")
    assert counted == {"stripe_event_stuck", "stripe_event_newest"}


@pytest.mark.parametrize(
    ("model", "name", "columns"),
    [
        (Offer, "offer_by_event", ["event_id", "is_active", "is_archived"]),
        (Offer, "offer_newest_on_sale", ["event_id", "created_at", "id"]),
        (Offer, "offer_by_expiry", ["is_active", "expires_at"]),
        (Purchase, "purchase_by_buyer", ["user_id", "event_id"]),
        (Purchase, "purchase_by_offer", ["offer_id", "status"]),
        (Purchase, "purchase_by_deadline", ["status", "reserved_until"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_index_has_its_columns_in_order(model: Any, name: str, columns: list[str]) -> None:
    with connection.cursor() as cursor:
        constraints = connection.introspection.get_constraints(cursor, model._meta.db_table)
    assert constraints[name]["columns"] == columns


def test_units_that_are_taken_change_no_index() -> None:
    """A new version of a row is in its page alone, as long as no index has what changes in it."""
    offer = OfferFactory()
    counted = "SELECT pg_stat_get_xact_tuples_hot_updated('offers_offer'::regclass)"
    with connection.cursor() as cursor:
        cursor.execute(counted)
        (before,) = cursor.fetchone()
        inventory.reserve(offer_id=offer.pk, quantity=1)
        # Sent with what comes next.
        cursor.execute(counted)
        assert cursor.fetchone() == (before + 1,)
        cursor.execute("SELECT reloptions FROM pg_class WHERE oid = 'offers_offer'::regclass")
        assert cursor.fetchone() == (["fillfactor=70"],)
