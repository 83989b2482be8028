"""Offers as CSV and XLSX: what is exported, and what a file that comes back may do."""

import csv
import html
import io
import zipfile
from datetime import timedelta
from decimal import Decimal
from typing import Any

import openpyxl
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from offers import inventory, lifecycle, offer_resource, sheet_files
from offers.imported_files import ImportedFile
from offers.models import Offer
from offers.offer_columns import COLUMNS
from purchases.states import Status
from tests.conftest import counters
from tests.factories import (
    EventFactory,
    EventSessionFactory,
    MembershipFactory,
    OfferFactory,
    PurchaseFactory,
    TicketTierFactory,
)
from tests.test_permissions import browser_of
from tests.two_organizations import World

pytestmark = pytest.mark.django_db

EXPORT = reverse("admin:offers_offer_export")
IMPORT = reverse("admin:offers_offer_import")
CONFIRM = reverse("admin:offers_offer_process_import")
CSV, XLSX = "0", "1"


@pytest.fixture
def event() -> Any:
    return EventFactory(slug="conf")


@pytest.fixture
def manager(event: Any) -> Client:
    return browser_of(MembershipFactory(organization=event.organization, role="manager").user)


def rows_of(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))


def exported(client: Client, **query: str) -> list[dict[str, str]]:
    return rows_of(client.post(EXPORT, {"format": CSV}, query_params=query).content)


def written(rows: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    text = io.StringIO(newline="")
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def preview(client: Client, content: bytes, kind: str = CSV) -> Any:
    file = SimpleUploadedFile("offers.csv", content)
    answer = client.post(IMPORT, {"import_file": file, "format": kind, "resource": "0"})
    assert answer.status_code == 200
    return answer


def confirm(client: Client, answer: Any) -> Any:
    return client.post(CONFIRM, answer.context["confirm_form"].initial, follow=True)


def assert_nothing_to_import(answer: Any) -> None:
    """The page says so, and has no button that would do nothing."""
    assert "confirm_form" not in answer.context
    assert "Nothing to import" in answer.content.decode()


def errors(answer: Any) -> dict[int, set[str]]:
    """Row of the file -> fields with an error; each message is on the page."""
    assert "confirm_form" not in answer.context
    invalid = answer.context["result"].invalid_rows
    text = html.unescape(answer.content.decode())
    for row in invalid:
        for messages in row.error.message_dict.values():
            assert all(message in text for message in messages)
    return {row.number: set(row.error.message_dict) for row in invalid}


def refused(client: Client, content: bytes, kind: str = CSV) -> str:
    """Why the file as a whole can't be read."""
    answer = preview(client, content, kind)
    assert "confirm_form" not in answer.context
    return str(answer.context["form"].errors["import_file"][0])


NEW = {
    "event": "conf", "title": "Mug", "offer_type": "MERCHANDISE", "price": "12.50",
    "currency": "EUR", "inventory_total": "7",
}  # fmt: skip


# -- Export ---------------------------------------------------------------------------------------


@pytest.fixture
def rich(event: Any) -> Offer:
    """An offer with something in every column, and all that a spreadsheet might spoil."""
    now = timezone.now()
    tier = TicketTierFactory(event=event, slug="vip")
    offer = OfferFactory(
        event=event, title="=1+1", description="-2\r\nand\n'more', \"quoted\"; ä\n",
        offer_type=Offer.Type.TICKET_UPGRADE, ticket_tier=tier, price=Decimal(500),
        original_price=Decimal(600), currency="JPY", starts_at=now, max_per_user=2,
        expires_at=now + timedelta(days=2), image_url="https://example.com/a.png",
    )  # fmt: skip
    offer.target_ticket_tiers.add(tier)
    offer.target_sessions.set([EventSessionFactory(event=event) for _ in range(2)])
    return offer


def test_export_has_the_apis_names_amounts_and_times(
    manager: Client, rich: Offer, client_of: Any
) -> None:
    (row,) = exported(manager)
    assert list(row) == list(COLUMNS)
    api = client_of().get(f"/api/v1/offers/{rich.pk}/").json()
    for name in ("id", "event", "price", "original_price", "currency", "starts_at", "expires_at",
                 "offer_type", "placement", "ticket_tier"):  # fmt: skip
        assert row[name] == api[name], name
    assert row["title"] == "'=1+1"
    assert row["price"] == "500"
    assert row["target_sessions"].split(", ") == sorted(api["target_sessions"])


@pytest.mark.parametrize("kind", [CSV, XLSX])
def test_file_that_comes_back_unchanged_changes_nothing(
    manager: Client, event: Any, rich: Offer, kind: str
) -> None:
    OfferFactory(event=event, inventory_total=None, description="@x;'=1")
    OfferFactory(event=event, is_archived=True, title="\tTab", description="Bring\n- a\n'- b;\t=1")
    before = list(Offer.objects.order_by("pk").values())
    file = manager.post(EXPORT, {"format": kind}).content
    answer = preview(manager, file, kind)
    assert_nothing_to_import(answer)
    assert list(Offer.objects.order_by("pk").values()) == before
    assert Offer.history.count() == 3 + 2  # made, and the targets of the first


def test_csv_that_a_spreadsheet_saved_as_xlsx_changes_nothing(manager: Client, event: Any) -> None:
    OfferFactory(event=event, description="Bring\n- a towel\n'- shoes;=1")
    (row,) = exported(manager)
    assert row["description"] == "Bring\n'- a towel\n''- shoes;'=1"
    book = openpyxl.Workbook()
    sheet: Any = book.active
    sheet.append(list(row))
    sheet.append(list(row.values()))
    saved = io.BytesIO()
    book.save(saved)
    assert_nothing_to_import(preview(manager, saved.getvalue(), XLSX))


def test_export_is_of_the_filtered_list_and_of_what_was_chosen(manager: Client, event: Any) -> None:
    kept = OfferFactory(event=event, title="Kept")
    OfferFactory(event=event, is_active=False)
    assert [row["title"] for row in exported(manager, state="on_sale")] == ["Kept"]
    sent = {"action": "export_csv", "_selected_action": [str(kept.pk)]}
    chosen = manager.post(reverse("admin:offers_offer_changelist"), sent)
    assert [row["id"] for row in rows_of(chosen.content)] == [str(kept.pk)]


# -- Import ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_new_offers_are_made_after_a_preview(manager: Client, event: Any, separator: str) -> None:
    TicketTierFactory(event=event, slug="vip")
    row = NEW | {"target_ticket_tiers": "vip", "starts_at": "2030-01-01T10:00:00Z"}
    answer = preview(manager, written([row], separator))
    assert Offer.objects.count() == 0
    assert "12.50" in answer.content.decode()
    assert "1 new offers" in confirm(manager, answer).content.decode()
    offer = Offer.objects.get()
    assert (offer.title, offer.price, offer.currency) == ("Mug", Decimal("12.50"), "EUR")
    assert (offer.inventory_total, offer.is_active) == (7, True)
    assert [tier.slug for tier in offer.target_ticket_tiers.all()] == ["vip"]
    (entry,) = Offer.history.filter(id=offer.pk)
    assert entry.history_change_reason == "import of offers.csv"
    assert entry.history_user is not None


def test_offers_are_changed_and_their_stock_under_the_lock(manager: Client, event: Any) -> None:
    offer = OfferFactory(event=event, inventory_total=10)
    PurchaseFactory(offer=offer, quantity=3)
    row = exported(manager)[0] | {"inventory_total": "5", "title": "New"}
    answer = preview(manager, written([row]))
    shown = answer.content.decode()
    assert "<del>10</del> <ins>5</ins>" in shown
    PurchaseFactory(offer=offer, quantity=1)  # between preview and confirmation
    confirm(manager, answer)
    assert counters(offer) == (4, 0)
    assert (offer.title, offer.inventory_total) == ("New", 5)


def test_spreadsheet_programs_own_types_are_understood(manager: Client, event: Any) -> None:
    offer = OfferFactory(event=event, currency="EUR")
    book = openpyxl.load_workbook(io.BytesIO(manager.post(EXPORT, {"format": XLSX}).content))
    sheet = book.active
    place = {cell.value: cell.column for cell in sheet[1]}
    for name, value in (("price", 50), ("inventory_total", 10.0), ("is_active", True)):
        sheet.cell(2, place[name], value)
    same = io.BytesIO()
    book.save(same)
    assert_nothing_to_import(preview(manager, same.getvalue(), XLSX))
    sheet.cell(2, place["price"], 49.5)
    sheet.cell(2, place["starts_at"], timezone.now().replace(2030, 1, 2, 3, 4, 0, 0, tzinfo=None))
    changed = io.BytesIO()
    book.save(changed)
    confirm(manager, preview(manager, changed.getvalue(), XLSX))
    offer.refresh_from_db()
    assert offer.price == Decimal("49.5")
    assert offer.starts_at is not None
    assert offer.starts_at.isoformat() == "2030-01-02T03:04:00+00:00"


@pytest.mark.parametrize(
    ("wrong", "fields"),
    [
        ({"price": "0.10"}, {"price"}),
        ({"price": "12.505"}, {"price"}),
        ({"price": "=1+1"}, {"price"}),
        ({"original_price": "1"}, {"original_price"}),
        ({"currency": "XXX"}, {"currency"}),
        ({"starts_at": "soon", "expires_at": "later"}, {"starts_at", "expires_at"}),
        (
            {"starts_at": "2030-01-02T00:00:00Z", "expires_at": "2030-01-01T00:00:00Z"},
            {"expires_at"},
        ),
        ({"inventory_total": "-1"}, {"inventory_total"}),
        ({"inventory_total": "99999999999"}, {"inventory_total"}),
        ({"target_sessions": "none-such"}, {"target_sessions"}),
        ({"ticket_tier": "none-such"}, {"ticket_tier"}),
        ({"shipping_countries": "DE, XX"}, {"shipping_countries"}),
        ({"offer_type": "HAT"}, {"offer_type"}),
        ({"is_active": "perhaps"}, {"is_active"}),
        ({"title": ""}, {"title"}),
        ({"event": "elsewhere"}, {"event"}),
        ({"id": "x"}, {"id"}),
        ({"is_archived": "true"}, {"is_archived"}),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)  # fmt: skip
def test_rule_that_is_broken_is_an_error_with_its_row_and_field(
    manager: Client, wrong: dict[str, str], fields: set[str]
) -> None:
    answer = preview(manager, written([NEW, NEW | wrong]))
    assert errors(answer) == {3: fields}
    assert Offer.objects.count() == 0


@pytest.mark.parametrize(
    ("wrong", "fields"),
    [
        ({"price": "49.00"}, {"price"}),
        ({"currency": "EUR"}, {"price"}),
        ({"offer_type": "SERVICE"}, {"offer_type"}),
        ({"inventory_total": "4"}, {"inventory_total"}),
        ({"event": "other"}, {"event"}),
        ({"is_archived": "true"}, {"is_archived"}),
        ({"placement": ""}, {"placement"}),
    ],
    ids=str,
)
def test_what_its_sales_forbid_is_an_error_in_the_preview(
    manager: Client, event: Any, wrong: dict[str, str], fields: set[str]
) -> None:
    EventFactory(slug="other", organization=event.organization)
    offer = OfferFactory(event=event)
    PurchaseFactory(offer=offer, quantity=5, status=Status.PAID)
    answer = preview(manager, written([exported(manager)[0] | wrong]))
    assert errors(answer) == {2: fields}


def test_nothing_is_half_done_when_something_was_sold_since_the_preview(
    manager: Client, event: Any
) -> None:
    _, second = OfferFactory.create_batch(2, event=event)
    rows = [row | {"title": "New", "price": "40.00"} for row in exported(manager)]
    answer = preview(manager, written([*rows, NEW]))
    PurchaseFactory(offer=second, status=Status.PAID)
    shown = confirm(manager, answer)
    assert "Nothing was imported" in shown.content.decode()
    assert [set(row.error.message_dict) for row in shown.context["result"].invalid_rows] == [
        {"price"}
    ]
    assert Offer.objects.filter(price=50).exclude(title="New").count() == 2
    assert Offer.objects.count() == 2
    assert Offer.history.count() == 2


def test_row_twice_is_an_error(manager: Client, event: Any) -> None:
    OfferFactory(event=event)
    row = exported(manager)[0] | {"title": "New"}
    assert errors(preview(manager, written([row, row]))) == {3: {"id"}}


# -- Odd files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (b"\x89PNG\r\n\x1a\n\x00", CSV, "CSV file in UTF-8"),
        ("title\nB\xfccher".encode("latin-1"), CSV, "CSV file in UTF-8"),
        ("title\nB".encode("utf-16"), CSV, "CSV file in UTF-8"),
        (b"title,event\nA,conf", XLSX, "can't be read"),
        (b"\n", CSV, "is empty"),
        (b"title,price\n", CSV, "nothing in this file"),
        (b"title,prize\nA,1", CSV, "no column “prize”"),
        (b"title,title\nA,B", CSV, "Several columns"),
        (b"price\n1", CSV, "is missing"),
        (b"title,price\nA,1,2,3", CSV, "Row 2 has more cells"),
        (b"title\n" + b"A\n" * (sheet_files.MOST_ROWS + 1), CSV, "at most 2,000 rows"),
        (b"title\n" + b"A" * sheet_files.LARGEST, CSV, "larger than 1"),
    ],
    ids=["png", "latin-1", "utf-16", "csv as xlsx", "empty", "only names", "unknown", "twice",
         "no key", "ragged", "rows", "size"],
)  # fmt: skip
def test_odd_file_is_refused_with_what_is_wrong(
    manager: Client, content: bytes, kind: str, said: str
) -> None:
    message = refused(manager, content, kind)
    assert said in message


def test_xlsx_that_unpacks_to_too_much_is_refused(manager: Client, monkeypatch: Any) -> None:
    book = openpyxl.Workbook()
    book.active.append(["title"])
    file = io.BytesIO()
    book.save(file)
    monkeypatch.setattr(sheet_files, "LARGEST_UNPACKED", 100)
    assert "too large" in refused(manager, file.getvalue(), XLSX)


@pytest.mark.parametrize("name", ["../../etc/passwd", "x", "", "eJwDAAAAAAE:1abc:sig"])
def test_file_that_we_have_not_previewed_is_not_imported(manager: Client, name: str) -> None:
    sent = {"import_file_name": name, "original_file_name": "a", "format": CSV, "resource": "0"}
    answer = manager.post(CONFIRM, sent, follow=True)
    assert "Nothing was imported" in answer.content.decode()
    assert manager.post(CONFIRM, sent | {"format": "7"}, follow=True).status_code == 200
    assert manager.get(CONFIRM).status_code == 302


# -- Who may --------------------------------------------------------------------------------------


def test_export_and_import_are_for_whom_they_should() -> None:
    world = World()
    for who, may_export, may_import in (
        ("owner", True, True), ("manager", True, True), ("support", True, False),
        ("superuser", True, True), ("ticked", False, False), ("buyer", False, False),
        ("anonymous", False, False),
    ):  # fmt: skip
        client = browser_of(world.people[who])
        answer = client.post(EXPORT, {"format": CSV})
        assert (answer.status_code == 200) == may_export, who
        if may_export:
            titles = {row["title"] for row in rows_of(answer.content)}
            assert ("Rival offer" in titles) == (who == "superuser"), who
            assert "Home offer" in titles
        assert (client.get(IMPORT).status_code == 200) == may_import, who
        assert (client.post(CONFIRM, {}).status_code == 302) == (
            may_import or who in ("buyer", "anonymous")
        ), who


@pytest.mark.parametrize("role", ["owner", "manager"])
def test_import_reaches_nothing_of_another_organization(role: str) -> None:
    world = World()
    client = browser_of(world[role])
    rows = [
        NEW | {"event": "rival-private"},
        {"id": str(world.away.offer.pk), "title": "Mine now"},
        {"id": str(world.away.public_offer.pk), "event": "home-public", "title": "Mine now"},
    ]
    answer = preview(client, written(rows))
    assert errors(answer) == {2: {"event"}, 3: {"id"}, 4: {"id"}}
    assert "Rival" not in answer.content.decode()


def test_support_in_one_organization_imports_nothing_there_as_owner_of_another() -> None:
    world = World()
    MembershipFactory(organization=world.away.organization, user=world["owner"], role="support")
    rows = [NEW | {"event": "rival-private"}, {"id": str(world.away.offer.pk), "title": "New"}]
    answer = preview(browser_of(world["owner"]), written(rows))
    assert errors(answer) == {2: {"event"}, 3: {"id"}}


# -- What somebody else did meanwhile -------------------------------------------------------------


def test_file_does_not_undo_what_was_done_since_it_was_written(manager: Client, event: Any) -> None:
    offer = OfferFactory(event=event, inventory_total=10)
    row = exported(manager)[0] | {"title": "New"}
    lifecycle.take(lifecycle.PAUSE, offer.pk, now=timezone.now(), source="test", actor=None)
    answer = preview(manager, written([row]))
    assert errors(answer) == {2: {"updated_at"}}
    assert "export it again" in answer.content.decode()


@pytest.mark.parametrize("leave_out", [True, False])
def test_confirmation_writes_nothing_that_the_preview_did_not_show(
    manager: Client, event: Any, leave_out: bool
) -> None:
    offer = OfferFactory(event=event, inventory_total=10)
    same = OfferFactory(event=event)  # which the file doesn't change when it is previewed
    rows = exported(manager)
    for row in rows:
        row["updated_at"] = "" if leave_out else row["updated_at"]
        if row["id"] == str(offer.pk):
            row["title"] = "New"
    answer = preview(manager, written(rows))
    inventory.set_total(offer_id=offer.pk, total=7)
    lifecycle.take(lifecycle.PAUSE, same.pk, now=timezone.now(), source="test", actor=None)
    shown = confirm(manager, answer)
    assert "Nothing was imported" in shown.content.decode()
    assert {row.number for row in shown.context["result"].invalid_rows} == {2, 3}
    for each in (offer, same):
        each.refresh_from_db()
    assert (offer.title != "New", offer.inventory_total, same.is_active) == (True, 7, False)


def test_confirmation_that_is_sent_twice_imports_once(manager: Client, event: Any) -> None:
    answer = preview(manager, written([NEW]))
    confirm(manager, answer)
    assert "imported already" in confirm(manager, answer).content.decode()
    assert Offer.objects.count() == 1
    ImportedFile.objects.update(at=timezone.now() - timedelta(days=2))
    confirm(manager, preview(manager, written([NEW])))
    assert ImportedFile.objects.count() == 1


def test_preview_is_confirmed_by_who_saw_it_and_read_as_it_was(manager: Client, event: Any) -> None:
    answer = preview(manager, written([NEW]))
    sent = answer.context["confirm_form"].initial | {"format": XLSX}
    other = browser_of(MembershipFactory(organization=event.organization, role="owner").user)
    told = other.post(CONFIRM, sent, follow=True).content.decode()
    assert "somebody else" in html.unescape(told)
    assert Offer.objects.count() == 0
    assert manager.post(CONFIRM, sent, follow=True).status_code == 200
    assert Offer.objects.count() == 1


def test_file_changes_a_bounded_number_of_offers(
    manager: Client, event: Any, monkeypatch: Any
) -> None:
    OfferFactory.create_batch(3, event=event)
    rows = [row | {"title": "New"} for row in exported(manager)]
    monkeypatch.setattr(offer_resource, "MOST_CHANGED", 2)
    answer = preview(manager, written(rows))
    assert "confirm_form" not in answer.context
    assert "at most 2 offers" in answer.content.decode()
    assert "confirm_form" in preview(manager, written([*rows[:2], NEW, NEW, NEW])).context


# -- Large and strange files ----------------------------------------------------------------------


def workbook(rows: list[list[Any]]) -> bytes:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


@pytest.mark.parametrize("part", ["xl/styles.xml", "xl/worksheets/sheet1.xml"])
def test_xlsx_whose_parts_unpack_to_too_much_is_refused(manager: Client, part: str) -> None:
    content = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(workbook([["title"], ["A"]]))) as source,
        zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in source.namelist():
            filling = b" " * (6_000_000 if "sheet1" in name else 300_000)
            bomb.writestr(name, source.read(name) + (filling if name == part else b""))
    assert "too large" in refused(manager, content.getvalue(), XLSX)


def test_empty_rows_do_not_count(manager: Client, event: Any) -> None:
    names, values = list(NEW), list(NEW.values())
    empty: list[Any] = [""] * len(names)
    rows = [names, values, *[empty] * 3_000, [*values[:3], "0.10", *values[4:]], *[empty] * 3_000]
    assert errors(preview(manager, workbook(rows), XLSX)) == {3_003: {"price"}}
    assert "Delete the empty rows" in refused(manager, b"title\nA\n" + b"\n" * 20_001)


def test_what_xlsx_can_not_hold_is_replaced_or_told(manager: Client, event: Any) -> None:
    offer = OfferFactory(event=event, title="Mug\x0b")
    sent = {"action": "export_xlsx", "_selected_action": [str(offer.pk)]}
    file = manager.post(reverse("admin:offers_offer_changelist"), sent).content
    assert_nothing_to_import(preview(manager, file, XLSX))
    Offer.objects.update(title="Mug", description="x" * 32_768)
    told = manager.post(reverse("admin:offers_offer_changelist"), sent, follow=True)
    assert "“Mug” has a description that is too long" in told.content.decode()


def test_filter_that_makes_no_sense_exports_nothing(manager: Client) -> None:
    answer = manager.get(EXPORT, {"created_at__year": "99999"})
    assert (answer.status_code, answer["Location"].endswith("?e=1")) == (302, True)
