"""Purchases as CSV and XLSX: what the list shows, of whom it may be shown, as it is written."""

import csv
import io
import tracemalloc
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import openpyxl
import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse

from offers import large_lists
from purchases import spreadsheets
from purchases.models import Purchase
from purchases.states import Status
from tests.factories import OfferFactory, PurchaseFactory, UserFactory, make_fulfillment
from tests.test_permissions import browser_of
from tests.two_organizations import World

pytestmark = pytest.mark.django_db

EXPORT = reverse("admin:purchases_purchase_export")


@pytest.fixture
def staff() -> Client:
    return browser_of(UserFactory(is_staff=True, is_superuser=True))


def exported(client: Client, query: str = "", file: str = "csv") -> list[dict[str, str]]:
    answer: Any = client.post(f"{EXPORT}?{query}", {"file": file})
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"].startswith("private, no-store")
    assert f".{file}" in answer.headers["Content-Disposition"]
    content = b"".join(answer.streaming_content)
    if file == "csv":
        return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    sheet = openpyxl.load_workbook(io.BytesIO(content)).worksheets[0]
    header, *rows = sheet.iter_rows(values_only=True)
    return [
        {str(k): v or "" for k, v in zip(header, row, strict=True)}  # type: ignore[misc]
        for row in rows
    ]


@pytest.mark.parametrize("file", ["csv", "xlsx"])
def test_file_has_the_apis_names_amounts_and_times(staff: Client, file: str) -> None:
    buyer = UserFactory(first_name="Ada", last_name="L.", email="ada@example.com")
    sold = PurchaseFactory(
        user=buyer, quantity=2, offer__price=500, offer__currency="JPY", status=Status.PAID
    )
    make_fulfillment(sold)
    (row,) = exported(staff, file=file)
    written = {
        "id": str(sold.pk), "event": sold.event.slug, "buyer_name": "Ada L.",
        "buyer_email": "ada@example.com", "quantity": "2", "unit_price": "500",
        "total_price": "1000", "currency": "JPY", "status": "paid", "release_reason": "",
        "refunded_amount": "0", "refunded_at": "", "fulfillment_status": "PENDING",
        "paid_at": sold.created_at.isoformat().replace("+00:00", "Z"),
    }  # fmt: skip
    assert written.items() <= row.items()


@pytest.mark.parametrize("file", ["csv", "xlsx"])
def test_no_cell_runs_as_a_formula(staff: Client, file: str) -> None:
    PurchaseFactory(
        offer__title="=HYPERLINK(1)\x0b", user__first_name="@SUM(A1)", user__email="+1@example.com"
    )
    (row,) = exported(staff, file=file)
    assert row["offer_title"].startswith("'=HYPERLINK(1)")
    assert (row["buyer_name"], row["buyer_email"]) == ("'@SUM(A1)", "'+1@example.com")


def test_name_that_is_split_at_its_semicolon_runs_as_no_formula(staff: Client) -> None:
    PurchaseFactory(user__first_name="Anna;=1+1;")
    assert [exported(staff, file=file)[0]["buyer_name"] for file in ("csv", "xlsx")] == [
        "Anna;'=1+1;",
        "Anna;=1+1;",
    ]


def test_file_holds_what_the_filtered_list_shows(staff: Client) -> None:
    paid = PurchaseFactory(status=Status.PAID, offer__title="Blue mug")
    held = PurchaseFactory()
    assert {row["id"] for row in exported(staff)} == {str(paid.pk), str(held.pk)}
    for query in ("status__exact=paid", "q=blue", f"q={paid.pk}", "status__exact=paid&p=1"):
        assert [row["id"] for row in exported(staff, query)] == [str(paid.pk)], query
    assert "1 purchase, as" in staff.get(f"{EXPORT}?status__exact=paid").content.decode()
    listed = staff.get(reverse("admin:purchases_purchase_changelist"), {"q": "blue"})
    assert f'href="{EXPORT}?q=blue"' in listed.content.decode()
    assert staff.get(f"{EXPORT}?status__exact__x=1").status_code == 302


@pytest.mark.parametrize(
    ("who", "status"),
    [("anonymous", 302), ("buyer", 302), ("ticked", 403), ("support", 200), ("owner", 200),
     ("rival", 200), ("superuser", 200)],
)  # fmt: skip
def test_file_holds_ones_own_organizations_purchases_only(who: str, status: int) -> None:
    world = World()
    client = browser_of(world.people[who])
    assert client.get(EXPORT).status_code == status
    answer = client.post(EXPORT, {"file": "csv"})
    assert answer.status_code == status
    if status == 200:
        titles = {row["offer_title"] for row in exported(client)}
        sides = {title.split()[0] for title in titles if title.split()[0] in ("Home", "Rival")}
        everybody = {"Home", "Rival"}
        assert sides == {"superuser": everybody, "rival": {"Rival"}}.get(who, {"Home"})
        foreign = exported(client, f"event__id__exact={world.away.event.pk}")
        assert bool(foreign) == (who in ("superuser", "rival"))


def test_too_many_for_one_file_are_said_so_and_csv_takes_them(
    staff: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spreadsheets, "XLSX_ROWS", 2)
    for _ in range(3):
        PurchaseFactory()
    refused = staff.post(EXPORT, {"file": "xlsx"})
    assert "at most 2 purchases, and these are more than 2" in refused.content.decode()
    assert len(exported(staff)) == 3


def test_nothing_is_sent_by_get_and_no_other_kind(staff: Client) -> None:
    PurchaseFactory(offer__title="Blue mug")
    for answer in (staff.get(f"{EXPORT}?q=mug"), staff.post(EXPORT, {"file": "exe"})):
        assert answer.status_code == 200
        assert "Blue mug" not in answer.content.decode()


def many(count: int, *, start: int = 0) -> None:
    offer, buyer = OfferFactory(), UserFactory()
    Purchase.objects.bulk_create(
        PurchaseFactory.build(
            offer=offer, user=buyer, event=offer.event, checkout_session_id=f"cs_{n}"
        )
        for n in range(start, start + count)
    )


def test_csv_is_sent_piece_by_piece_in_a_query_a_page(
    staff: Client, django_assert_num_queries: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    many(1_000)
    monkeypatch.setattr(spreadsheets, "CHUNK", 100)
    answer: Any = staff.post(EXPORT, {"file": "csv"})
    with django_assert_num_queries(11):
        pieces: Iterator[bytes] = iter(answer.streaming_content)
        tracemalloc.start()
        lines = sum(1 for _ in pieces)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert lines == 1_001
    # A thousand purchases at once are five times this.
    assert most < 1_500_000


def test_pages_of_a_file_overlap_in_nothing_and_leave_nothing_out(
    staff: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    many(20)
    oldest_first = list(Purchase.objects.order_by("created_at", "pk"))
    # Moments that several have, also across the pages' ends.
    for n, purchase in enumerate(oldest_first):
        at = oldest_first[0].created_at + timedelta(seconds=n // 7)
        Purchase.objects.filter(pk=purchase.pk).update(created_at=at)
    monkeypatch.setattr(spreadsheets, "CHUNK", 3)
    wanted = Purchase.objects.order_by("-created_at", "-pk").values_list("pk", flat=True)
    assert [row["id"] for row in exported(staff)] == [str(pk) for pk in wanted]


@pytest.mark.django_db(transaction=True)
def test_who_reads_slowly_keeps_no_connection(
    staff: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    many(5)
    monkeypatch.setattr(spreadsheets, "CHUNK", 2)
    answer: Any = staff.post(EXPORT, {"file": "csv"})
    read = []
    for piece in answer.streaming_content:
        read.append(piece)
        # With a pool this is the way back into it.
        assert connection.connection is None or len(read) == 1
    assert len(read) == 6


def test_more_than_the_list_counts_are_said_and_bounded_as_many_as_they_are(
    staff: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list counts to half of what a file may hold."""
    monkeypatch.setattr(large_lists, "MOST_COUNTED", 2)
    monkeypatch.setattr(spreadsheets, "XLSX_ROWS", 4)
    many(3)
    assert "3 purchases, as the list has them" in staff.get(EXPORT).content.decode()
    assert len(exported(staff, file="xlsx")) == 3
    many(2, start=3)
    assert "more than 4 purchases, as the list" in staff.get(EXPORT).content.decode()
    refused = staff.post(EXPORT, {"file": "xlsx"}).content.decode()
    assert "at most 4 purchases, and these are more than 4:" in refused
    assert len(exported(staff)) == 5
