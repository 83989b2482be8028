"""The dashboard's figures, against what was sold by hand; and who sees whose."""

import csv
import io
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from fulfillment.states import Status as Delivered
from offers import heartbeat
from offers.breaker import redis_breaker
from offers.impressions import Impression
from offers.models import Event, Membership, Offer
from offers_project.back_office.dashboard import funnel, health, pages, sales, stock, waiting
from offers_project.back_office.dashboard.period import Period
from offers_project.back_office.dashboard.scope import Scope
from offers_project.back_office.dashboard.tables import Table
from purchases.holds import overdue
from purchases.models import Dispute, Purchase, Refund, StripeEvent
from purchases.states import Status
from tests.factories import (
    DisputeFactory,
    EventFactory,
    MembershipFactory,
    OfferFactory,
    PurchaseFactory,
    RefundFactory,
    UserFactory,
    make_fulfillment,
)
from tests.test_permissions import browser_of
from tests.two_organizations import CALLERS, World

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 6, 10, 12, tzinfo=UTC)
ALL = Scope(None)
JUNE = Period(date(2026, 6, 1), date(2026, 6, 10))
TABLES = sorted(pages.FILES)


def sold(at: datetime, *, event: Event | None = None, price: str = "50", **more: Any) -> Purchase:
    """One that was started and paid at a time."""
    currency = more.pop("currency", "USD")
    offer = more.pop("offer", None) or OfferFactory(
        event=event or EventFactory(), price=Decimal(price), currency=currency
    )
    return PurchaseFactory(
        offer=offer, created_at=at, status=more.pop("status", Status.PAID), **more
    )


def values(table: Table) -> list[list[str]]:
    return [[str(value) for value in row] for row in table.values()]


@pytest.fixture
def boss() -> Client:
    return browser_of(UserFactory(is_staff=True, is_superuser=True))


def page(client: Client, **query: Any) -> Any:
    answer = client.get(reverse("admin:index"), query)
    assert answer.status_code == 200
    return answer


def file(client: Client, name: str, **query: Any) -> list[list[str]]:
    answer = client.get(reverse("admin:dashboard_csv", args=[name]), query)
    assert answer.status_code == 200, answer
    return list(csv.reader(io.StringIO(answer.content.decode("utf-8-sig"))))


# -- Revenue --------------------------------------------------------------------------------------


def test_revenue_is_kept_apart_by_currency() -> None:
    sold(NOW, quantity=2)
    sold(NOW, price="0")
    sold(NOW, price="500", currency="JPY", quantity=3)
    sold(NOW, price="1.250", currency="KWD")
    sold(NOW, status=Status.AWAITING_PAYMENT)
    found = sales.of(ALL, JUNE)

    currencies = found.currencies()
    assert list(currencies) == ["USD", "JPY", "KWD"]
    usd = currencies["USD"]
    assert (usd.gross, usd.net, usd.orders, usd.units) == (100, 100, 2, 3)
    assert usd.average == 100  # what is free has no price to average
    assert values(sales.revenue_table(found)) == [
        ["2026-06-10", "JPY", "1500", "0", "1500", "1"],
        ["2026-06-10", "KWD", "1.250", "0.000", "1.250", "1"],
        ["2026-06-10", "USD", "100.00", "0.00", "100.00", "2"],
    ]
    assert values(sales.units_table(found)) == [["2026-06-10", "4", "7"]]


def test_refund_counts_on_its_own_day_and_only_once_it_arrived() -> None:
    june_2 = datetime(2026, 6, 2, 9, tzinfo=UTC)
    purchase = sold(june_2)
    earlier = sold(june_2 - timedelta(days=30))
    state = Refund.State
    for bought, amount, how, day in (
        (purchase, 20, state.SUCCEEDED, 3),
        (purchase, 5, state.PENDING, 3),
        (purchase, 7, state.FAILED, 3),
        (earlier, 50, state.SUCCEEDED, 4),
    ):
        at = datetime(2026, 6, day, tzinfo=UTC)
        RefundFactory(purchase=bought, amount=amount, state=how, settled_at=at)
    RefundFactory(  # of a second payment, which is no revenue either
        purchase=purchase, payment_intent_id="pi_other", amount=50, state=state.SUCCEEDED,
        settled_at=june_2,
    )  # fmt: skip

    found = sales.of(ALL, JUNE)

    assert values(sales.revenue_table(found)) == [
        ["2026-06-02", "USD", "50.00", "0.00", "50.00", "1"],
        ["2026-06-03", "USD", "0.00", "20.00", "-20.00", "0"],
        ["2026-06-04", "USD", "0.00", "50.00", "-50.00", "0"],
    ]
    usd = found.currencies()["USD"]
    assert (usd.gross, usd.refunded, usd.net) == (50, 70, -20)


def test_late_payment_that_is_sent_back_leaves_nothing() -> None:
    late = sold(NOW, status=Status.REFUND_DUE)
    assert sales.of(ALL, JUNE).currencies()["USD"].net == 50  # it is here still
    late.refunds.update(state=Refund.State.SUCCEEDED, settled_at=NOW)
    assert sales.of(ALL, JUNE).currencies()["USD"].net == 0


def test_day_begins_and_ends_at_midnight_of_utc() -> None:
    first, after = JUNE.start, JUNE.end
    moment = timedelta(microseconds=1)
    for at in (first - moment, first, after - moment, after):
        sold(at)
    found = sales.of(ALL, JUNE)
    assert [row[0] for row in values(sales.revenue_table(found))] == ["2026-06-01", "2026-06-10"]
    assert [orders for _, orders, _ in found.units()] == [1, *[0] * 8, 1]


# -- The funnel -----------------------------------------------------------------------------------


def test_funnel_counts_each_step_by_placement() -> None:
    offer = OfferFactory(placement="CHECKOUT", inventory_total=None)
    other = OfferFactory(placement="EMAIL", inventory_total=None)
    for day, seen in ((1, 30), (10, 10), (11, 1000)):
        Impression.objects.create(
            offer=offer, placement="CHECKOUT", day=date(2026, 6, day), seen=seen
        )
    Impression.objects.create(offer=offer, placement="IN_EVENT", day=JUNE.first, seen=5)
    for status in (Status.AWAITING_PAYMENT, Status.RELEASED, *[Status.PAID] * 5, Status.REFUNDED):
        sold(NOW, offer=offer, status=status)
    sold(NOW, offer=other)
    sold(JUNE.end, offer=offer)

    found = funnel.table(ALL, JUNE)

    assert values(found) == [
        ["Checkout", "40", "8", "20.0", "6", "75.0", "1", "16.7"],
        ["In Event", "5", "0", "0.0", "0", "", "0", ""],
        ["Email", "0", "1", "", "1", "100.0", "0", "0.0"],
    ]
    assert [str(cell) for cell in found.totals] == [
        "All", "45", "9", "20.0 %", "7", "77.8 %", "1", "14.3 %",
    ]  # fmt: skip


# -- Stock ----------------------------------------------------------------------------------------


def test_stock_says_when_it_runs_out_at_the_rate_of_the_last_week() -> None:
    long_ago = NOW - timedelta(days=90)

    def offer(title: str, **more: Any) -> Offer:
        return OfferFactory(title=title, **{"starts_at": long_ago, **more})

    slow, quick = offer("slow", inventory_total=100), offer("quick", inventory_total=30)
    new = offer("new", inventory_total=30, starts_at=NOW - timedelta(days=1))
    ends = offer("ends", inventory_total=30, expires_at=NOW + timedelta(days=2))
    out, unlimited = offer("out", inventory_total=1), offer("unlimited", inventory_total=None)
    offer("idle", inventory_total=3)
    offer("hidden", is_active=False)
    offer("archived", is_archived=True)
    offer("over", expires_at=NOW - timedelta(days=1))
    yesterday = NOW - timedelta(hours=20)
    for each, quantity in ((quick, 7), (slow, 1), (new, 7), (ends, 7), (out, 1), (unlimited, 4)):
        sold(yesterday, offer=each, quantity=quantity)
    sold(NOW - timedelta(days=8), offer=slow, quantity=9)
    sold(NOW, offer=quick, quantity=3, status=Status.AWAITING_PAYMENT)

    found = stock.of(ALL, now=NOW)
    rows = {row[0]: row[2:] for row in values(stock.table(found, now=NOW, is_all=False))}

    assert rows == {
        "quick": ["20", "30", "3", "7", "7", "in 20 days, 30 Jun 2026"],
        "new": ["23", "30", "0", "7", "7", "in 3 days, 13 Jun 2026"],
        "ends": ["23", "30", "0", "7", "7", "lasts until the sale ends"],
        "slow": ["90", "100", "0", "10", "1", "in more than a year"],
        "out": ["0", "1", "0", "1", "1", "sold out"],
        "unlimited": ["–", "unlimited", "0", "4", "4", "unlimited"],
        "idle": ["3", "3", "0", "0", "0", "no sales in 7 days"],
    }
    assert found[0].offer.title == "quick"
    assert {s.offer.pk for s in stock.of(ALL, now=NOW, limit=None)} == {s.offer.pk for s in found}


def test_page_shows_twenty_offers_and_the_file_all(boss: Client) -> None:
    event = EventFactory()
    for offer in OfferFactory.create_batch(25, event=event):
        sold(timezone.now(), offer=offer)
    OfferFactory.create_batch(3, event=event)
    assert len(page(boss).context["stock"].rows) == 20
    assert len(file(boss, "stock")) == 1 + 28


# -- What waits -----------------------------------------------------------------------------------


def test_holds_are_sorted_by_age() -> None:
    for minutes in (1, 4, 6, 14, 16, 70, 76, 500):
        sold(NOW - timedelta(minutes=minutes), status=Status.AWAITING_PAYMENT, quantity=2)
    sold(NOW - timedelta(days=1), status=Status.PAYMENT_PROCESSING)
    sold(NOW)
    # Told that Stripe failed: a sweep ends it before its time. One with a problem it leaves alone.
    failed, odd = sold(NOW, status=Status.RESERVED), sold(NOW, status=Status.RESERVED)
    Purchase.objects.filter(pk=failed.pk).update(checkout_failed_at=NOW)
    Purchase.objects.filter(pk=odd.pk).update(problem="Paid twice.", reserved_until=NOW)
    found = waiting.holds(ALL, now=NOW)
    assert [row[1:] for row in values(found.table)] == [
        ["2", "4"], ["2", "4"], ["1", "1"], ["5", "9"], ["2", "4"], ["1", "1"],
    ]  # fmt: skip
    assert found.stuck.count == 2
    assert int(values(found.table)[3][1]) == overdue(now=NOW).count()


def test_counts_lead_to_lists_of_just_as_many(boss: Client) -> None:
    now = timezone.now()
    event = EventFactory()
    for minutes in (1, 6, 14, 16, 76, 500):
        sold(now - timedelta(minutes=minutes), event=event, status=Status.AWAITING_PAYMENT)
    sold(now, status=Status.AWAITING_PAYMENT)
    for odd in ({"problem": "Odd."}, {"checkout_failed_at": now}):
        of = sold(now, event=event, status=Status.RESERVED)
        Purchase.objects.filter(pk=of.pk).update(**odd)
    sold(now, event=event, status=Status.PAYMENT_PROCESSING)
    stuck = sold(now, event=event)
    Purchase.objects.filter(pk=stuck.pk).update(problem="Paid twice.")
    for status in (Delivered.PENDING, Delivered.FAILED, Delivered.FAILED):
        make_fulfillment(sold(now, event=event), status=status)
    RefundFactory(purchase=stuck, state=Refund.State.FAILED)
    DisputeFactory(purchase=stuck)
    DisputeFactory(purchase=stuck, status="won")
    for query in ({}, {"event": event.pk}):
        context = page(boss, **query).context
        linked = {each.link: each.count for each in context["attention"]}
        assert len(linked) == 4
        for name in ("holds", "fulfilments", "refunds"):
            linked |= {
                cell.link: int(str(cell.value))
                for row in context[name].rows for cell in row if cell.link
            }  # fmt: skip
        assert len(linked) >= 8
        for link, number in linked.items():
            answer = boss.get(link)
            assert answer.status_code == 200, link
            assert answer.context["cl"].result_count == number, link


def test_disputes_are_shown_by_what_is_due_first() -> None:
    purchase = sold(NOW)
    for days in range(7):
        DisputeFactory(purchase=purchase, evidence_due_by=NOW + timedelta(days=9 - days))
    DisputeFactory(purchase=purchase, status="under_review", evidence_due_by=None)
    DisputeFactory(purchase=purchase, status="lost")
    found = waiting.disputes(ALL)
    assert [row[5] for row in values(found.table)][:2] == ["2026-06-13 12:00", "2026-06-14 12:00"]
    assert found.table.about == "The first 5 of 8."
    assert found.to_answer.count == 7
    assert "13 Jun 2026, 12:00 UTC" in found.to_answer.said
    assert len(waiting.disputes(ALL, limit=None).table.rows) == 8
    assert Dispute.objects.count() == 9


def test_dispute_whose_id_holds_what_admin_quotes_is_linked(boss: Client) -> None:
    dispute = DisputeFactory(id="du_3AB", purchase=sold(NOW))
    link = waiting.disputes(ALL).table.rows[0][0].link
    assert boss.get(link).context["original"] == dispute


# -- Health ---------------------------------------------------------------------------------------


def test_health_is_told_in_detail_to_superusers_only(sandbox: Any) -> None:
    heartbeat.beat(now=NOW)
    in_detail = health.of(ALL, now=NOW, is_for_superusers=True).checks
    assert {check.name: check.is_well for check in in_detail} == {
        "PostgreSQL": True, "Redis": True, "Worker": True, "Stripe": True,
        "Stripe's webhooks": True, "Webhook endpoints": True,
    }  # fmt: skip
    members = health.of(Scope(()), now=NOW, is_for_superusers=False).checks
    assert [check.name for check in members] == ["Worker", "Stripe", "Webhook endpoints"]


def test_health_names_what_is_not_well(sandbox: Any) -> None:
    heartbeat.beat(now=NOW - timedelta(minutes=10))
    for n, state in enumerate((StripeEvent.State.FAILED, StripeEvent.State.DEAD)):
        StripeEvent.objects.create(
            id=f"evt_{n}", type="x", created=NOW, payload={}, state=state,
            received_at=NOW - timedelta(hours=2), due_at=NOW,
        )  # fmt: skip
    redis_breaker.failed(OSError("away"))
    found = health.of(ALL, now=NOW, is_for_superusers=True)
    unwell = {check.name: check.said for check in found.checks if not check.is_well}
    assert set(unwell) == {"Redis", "Worker", "Stripe's webhooks"}
    assert "10 min" in unwell["Worker"]
    assert "the oldest for 2 h" in unwell["Stripe's webhooks"]
    assert [each.count for each in found.attention] == [1, 0]


def test_page_opens_while_redis_is_away(boss: Client) -> None:
    redis_breaker.failed(OSError("away"))
    assert "everything works, slower" in page(boss).content.decode()


# -- Who sees what --------------------------------------------------------------------------------


@pytest.mark.parametrize("who", CALLERS)
def test_everybody_sees_their_own_organizations_figures(who: str) -> None:
    world = World()
    client = browser_of(world.people[who])
    answer = client.get(reverse("admin:index"))
    if who in ("anonymous", "buyer", "attendee", "stranger"):
        assert answer.status_code == 302
        for name in TABLES:
            assert client.get(reverse("admin:dashboard_csv", args=[name])).status_code == 302
        return
    shown = answer.content.decode()
    assert ("Rival" in shown) == (who in ("rival", "superuser"))
    assert ("Home" in shown) == (who in ("owner", "manager", "support", "superuser"))
    # Each organization sold the same: one half of all is theirs.
    parts = {"superuser": 2, "ticked": 0}.get(who, 1)
    context = answer.context
    one = sales.of(Scope((world.home.organization.pk,)), context["period"])
    assert context["orders"] == parts * sum(t.orders for t in one.currencies().values())
    assert int(str(context["refunds"].rows[0][1].value)) == parts
    assert len(context["disputes"].rows) == parts
    for name in TABLES:
        text = str(file(client, name))
        assert "Rival" not in text or who in ("rival", "superuser")


@pytest.mark.parametrize("who", ["owner", "support", "ticked"])
def test_event_of_another_organization_is_as_unknown_as_none(who: str) -> None:
    world = World()
    client = browser_of(world[who])
    foreign, unknown = world.away.event.pk, "4d3c3b9e-0000-4000-8000-000000000000"
    said = {
        key: page(client, event=key).context["errors"]
        for key in (str(foreign), unknown, "no id", "'")
    }
    assert len({str(errors) for errors in said.values()}) == 1
    assert "no such event" in str(said[unknown])
    answer = client.get(reverse("admin:dashboard_csv", args=["revenue"]), {"event": str(foreign)})
    assert answer.status_code == 302


def test_event_narrows_every_figure(boss: Client) -> None:
    now = timezone.now()
    here, there = EventFactory(title="Here"), EventFactory(title="There")
    for event in (here, there):
        offer = OfferFactory(event=event, title=f"{event.title}'s")
        Impression.objects.create(offer=offer, placement="EMAIL", day=now.date(), seen=3)
        purchase = sold(now, offer=offer)
        make_fulfillment(purchase, status=Delivered.FAILED)
        RefundFactory(purchase=purchase)
        DisputeFactory(purchase=purchase)
        sold(now, offer=offer, status=Status.AWAITING_PAYMENT)
    context = page(boss, event=here.pk).context
    assert context["orders"] == 1
    assert [row[0].value for row in context["stock"].rows] == ["Here's"]
    assert context["placements"].totals[1].value == 3
    for name, column in (("holds", 1), ("refunds", 1), ("fulfilments", 3)):
        assert sum(int(str(row[column].value)) for row in context[name].rows) == 1, name
    assert {each.count for each in context["attention"]} == {1}
    assert "There" not in str(file(boss, "stock", event=here.pk))


def test_events_are_searched_and_not_all_listed(boss: Client) -> None:
    EventFactory.create_batch(30)
    shown = page(boss).content.decode()
    assert shown.count("<option") < 10
    assert 'data-field-name="event"' in shown


# -- What is asked --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "days", "said"),
    [
        ({}, 30, ""),
        ({"period": "1"}, 1, ""),
        ({"period": "7"}, 7, ""),
        ({"period": "days", "since": "2026-06-01", "until": "2026-06-03"}, 3, ""),
        ({"period": "days", "since": "2026-06-09"}, 2, ""),
        ({"period": "days", "since": "2026-06-09", "until": "9999-12-31"}, 2, ""),
        ({"period": "days", "since": "2025-06-10"}, 366, ""),
        ({"period": "days"}, 30, "From which day"),
        ({"period": "days", "since": "2026-06-03", "until": "2026-06-01"}, 30, "before the first"),
        ({"period": "days", "since": "2026-06-11"}, 30, "still to come"),
        ({"period": "days", "since": "0001-01-01", "until": "2026-06-01"}, 30, "a year at most"),
        ({"period": "days", "since": "99999-01-01"}, 30, "no day"),
        ({"period": "days", "since": "2026-02-30", "until": "x"}, 30, "no day"),
        ({"period": "nine"}, 30, "no such period"),
        ({"period": "\ud800"}, 30, "no such period"),
        ({"event": "1" * 5000}, 30, "no such event"),
    ],
)
def test_query_is_answered_or_what_is_wrong_with_it_is_said(
    boss: Client, query: dict[str, str], days: int, said: str
) -> None:
    with time_machine.travel(NOW, tick=False):
        encoded = "&".join(
            f"{key}={value.encode('utf-8', 'surrogatepass').decode('latin-1')}"
            for key, value in query.items()
        )
        answer = boss.get(f"{reverse('admin:index')}?{encoded}")
        assert answer.status_code == 200
        context = answer.context
        assert len(list(context["period"].days())) == days
        assert said in str(context["errors"])
        assert bool(said) == bool(context["errors"])
        for error in context["errors"]:
            assert error.split("(")[0] in answer.content.decode()
        file_answer = boss.get(f"{reverse('admin:dashboard_csv', args=['revenue'])}?{encoded}")
        assert file_answer.status_code == (302 if said else 200)


def test_unknown_file_is_not_found(boss: Client) -> None:
    assert boss.get("/admin/dashboard/people.csv").status_code == 404


# -- Files and charts -----------------------------------------------------------------------------


def test_files_have_the_figures_of_the_page(boss: Client) -> None:
    world = World()
    Impression.objects.create(
        offer=world.home.offer, placement="EMAIL", day=timezone.now().date(), seen=1234
    )
    Offer.objects.filter(pk=world.home.offer.pk).update(title='=HYPERLINK("http://x")')
    query = {"event": str(world.home.event.pk), "period": "7"}
    answer = page(boss, **query)
    shown = {
        table.name: table
        for table in pages.context(answer.wsgi_request).values()
        if isinstance(table, Table)
    }
    assert sorted(shown) == TABLES
    for name, table in shown.items():
        rows = file(boss, name, **query)
        assert rows[0] == list(table.columns)
        assert [[c.removeprefix("'") for c in row] for row in rows[1:]] == values(table), name
    assert "'=HYPERLINK" in str(file(boss, "stock", **query))
    assert "1,234" in answer.content.decode()
    for link in re.findall(r'href="([^"]+\.csv[^"]*)"', answer.content.decode()):
        assert boss.get(link.replace("&amp;", "&")).status_code == 200


def test_charts_have_their_figures_beside_them_and_a_sentence(boss: Client) -> None:
    now = timezone.now()
    for currency in ("USD", "JPY", "EUR", "GBP"):
        sold(now, currency=currency, price="1000")
    sold(now, price="1234.50")
    answer = page(boss)
    charts = answer.context["revenue_charts"]
    assert [chart.id for chart in charts] == ["revenue-USD", "revenue-EUR", "revenue-GBP"]
    assert "2,234.50 USD paid" in charts[0].said
    assert charts[0].figures["series"][0]["values"] == [*[0] * 29, 2234.5]
    shown = answer.content.decode()
    for chart in (*charts, answer.context["units_chart"]):
        assert f'<script id="{chart.script_id}" type="application/json">' in shown
        assert chart.said in shown
    scripts = re.findall(r"<script(?![^>]*src=)([^>]*)>", shown)
    assert all('type="application/json"' in script for script in scripts)
    assert shown.count("GBP") > 1  # the table has all of them


def test_empty_dashboard_says_what_to_do() -> None:
    organization = EventFactory().organization
    for role, adds in ((Membership.Role.OWNER, True), (Membership.Role.SUPPORT, False)):
        member = MembershipFactory(organization=organization, role=role).user
        shown = page(browser_of(member)).content.decode()
        assert "Nothing to sell yet" in shown
        assert ("Set up an offer" in shown) == adds
    OfferFactory(event__organization=organization)
    assert "Choose a longer period" in page(browser_of(member)).content.decode()


def test_page_takes_as_many_queries_for_many_rows() -> None:
    world = World()

    def queries(who: str) -> int:
        client = browser_of(world[who])
        page(client)
        with CaptureQueriesContext(connection) as captured:
            page(client, event=str(world.home.public_event.pk))
        # Each process asks for the kill switch again every two seconds.
        return len([query for query in captured if "waffle_switch" not in query["sql"]])

    before = {who: queries(who) for who in ("superuser", "owner", "support")}
    for n in range(10):
        offer = OfferFactory(event=world.home.public_event, currency="EUR", price=Decimal(n + 1))
        purchase = sold(timezone.now(), offer=offer)
        make_fulfillment(purchase, status=Delivered.FAILED)
        DisputeFactory(purchase=purchase)
        RefundFactory(purchase=purchase)
    assert {who: queries(who) for who in before} == before
    assert max(before.values()) < 20
