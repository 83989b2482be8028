"""Prepared statements answer as the ORM does, are prepared by PostgreSQL, and keep its rules."""

import threading
import uuid
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.models import IntegerField, TextField, UUIDField
from django.db.transaction import TransactionManagementError
from django.db.utils import IntegrityError, NotSupportedError
from django.utils import timezone
from psycopg import _queries

from offers import inventory
from offers.models import Event, Offer
from offers.prepared import Among, Change, Given, Insert, Query, Row, Update, _Column
from purchases.models import Email, Purchase, PurchaseTransition
from tests.conftest import behind
from tests.factories import EventFactory, OfferFactory, PurchaseFactory, UserFactory

pytestmark = pytest.mark.django_db


def prepared_statements() -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement FROM pg_prepared_statements")
        return [statement for (statement,) in cursor.fetchall()]


def test_statement_that_a_connection_sends_often_is_prepared() -> None:
    by_name = Row(lambda: User.objects.filter(pk=Given("pk", IntegerField())).values_list("email"))
    user = UserFactory(email="a@example.com")
    for _ in range(10):
        assert by_name.get(pk=user.pk) == ("a@example.com",)
    own = 'SELECT "auth_user"."email"'  # others prepared theirs of users on this connection
    assert sum(said.startswith(own) for said in prepared_statements()) == 1


def test_query_answers_with_what_the_orm_would_have() -> None:
    purchase = PurchaseFactory(status="awaiting_payment", quantity=3)
    queryset = Purchase.objects.select_related("event", "offer")
    query = Query(lambda: queryset.filter(pk=Given("pk", UUIDField())))
    for _ in range(7):  # as text first, prepared later
        found = query.first(pk=purchase.pk)
        assert found is not None
        stored = queryset.get(pk=purchase.pk)
        assert {k: v for k, v in found.__dict__.items() if k != "_state"} == {
            k: v for k, v in stored.__dict__.items() if k != "_state"
        }
        assert found._state.fields_cache == stored._state.fields_cache
        assert not found._state.adding


def test_query_that_finds_nothing_is_none() -> None:
    query = Query(lambda: Event.objects.filter(pk=Given("pk", UUIDField())))
    assert query.first(pk=uuid.uuid4()) is None


def test_insert_stores_what_save_would_and_gives_the_keys() -> None:
    purchase = PurchaseFactory()
    rows = [
        PurchaseTransition(
            purchase=purchase, name=name, to_status="paid", source="api", created_at=timezone.now()
        )
        for name in ("one", "two")
    ]
    Insert(PurchaseTransition).run(rows)
    assert [PurchaseTransition.objects.get(pk=row.pk).name for row in rows] == ["one", "two"]
    assert not any(row._state.adding for row in rows)


def test_insert_once_leaves_what_is_there_and_the_transaction_goes_on() -> None:
    purchase, now = PurchaseFactory(), timezone.now()
    emails = Insert(Email)

    def email(occasion: str, error: str = "") -> Email:
        return Email(purchase=purchase, occasion=occasion, error=error, due_at=now, created_at=now)

    first, again, other = email("one"), email("one", error="again"), email("other")
    with transaction.atomic():
        assert [emails.run_once(row) for row in (first, again, other)] == [True, False, True]
    assert list(purchase.emails.order_by("pk")) == [first, other]
    assert not first.error
    assert not first._state.adding
    assert again.pk is None
    assert again._state.adding


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_kept", [True, False])
def test_insert_once_waits_for_who_is_storing_the_like_and_stores_it_if_they_do_not(
    is_kept: bool,
) -> None:
    purchase, now = PurchaseFactory(), timezone.now()
    emails = Insert(Email)

    def store() -> bool:
        with transaction.atomic():
            return emails.run_once(
                Email(purchase=purchase, occasion="one", due_at=now, created_at=now)
            )

    assert behind(store, store, is_kept=is_kept) is not is_kept
    assert purchase.emails.count() == 1


def test_insert_with_a_row_that_it_refers_to_stores_both_or_neither() -> None:
    user, offer, now = UserFactory(), OfferFactory(), timezone.now()

    def hold(status: str) -> tuple[Purchase, list[PurchaseTransition]]:
        purchase = Purchase(
            user=user, offer=offer, event=offer.event, offer_title=offer.title, quantity=1,
            unit_price=1, total_price=1, currency="USD", status=status, reserved_until=now,
            created_at=now, idempotency_key="key",
        )  # fmt: skip
        entry = {"purchase": purchase, "to_status": status, "source": "api", "created_at": now}
        return purchase, [PurchaseTransition(name=name, **entry) for name in ("one", "two")]

    purchase, entries = hold("reserved")
    Insert(PurchaseTransition).run_with(Insert(Purchase), purchase, entries)
    assert Purchase.objects.get() == purchase
    assert list(purchase.transitions.order_by("pk")) == entries
    assert not any(row._state.adding for row in (purchase, *entries))
    again, entries = hold("reserved")
    with pytest.raises(IntegrityError, match="idempotency"), transaction.atomic():
        Insert(PurchaseTransition).run_with(Insert(Purchase), again, entries)
    assert again._state.adding
    assert PurchaseTransition.objects.count() == 2


def test_rows_that_are_stored_many_at_once_are_as_the_orm_would_store_them() -> None:
    user, offer, now = UserFactory(), OfferFactory(), timezone.now()

    def drafts() -> tuple[list[Purchase], list[PurchaseTransition]]:
        purchases = [
            Purchase(
                user=user, offer=offer, event=offer.event, quantity=number,
                offer_title=f'"Größe" {number} \\ \n\t{{}} \u2028 \U0001f39f',
                unit_price=Decimal("1111111.111"), total_price=Decimal("1111111.111") * number,
                currency="USD",
                status="reserved", reserved_until=now, created_at=now + timedelta(microseconds=1),
                paid_at=None, checkout_request={"of": ["it", 1, None, True, {"all": 1.5}]},
                shipping_address=None, fulfillment_due=True,
            )
            for number in range(1, 4)
        ]  # fmt: skip
        entries = [
            PurchaseTransition(
                purchase=purchase, name=name, to_status="reserved", actor=user, created_at=now
            )
            for purchase in purchases
            for name in ("one", "two")
        ]
        return purchases, entries

    purchases, entries = drafts()
    Insert(PurchaseTransition).run_all_with(Insert(Purchase), purchases, entries)
    assert not any(row._state.adding for row in (*purchases, *entries))
    others, their_entries = drafts()
    Purchase.objects.bulk_create(others)
    PurchaseTransition.objects.bulk_create(their_entries)

    def stored(rows: Any) -> list[list[Any]]:
        return [
            [getattr(row, field.attname) for field in row._meta.concrete_fields]
            for row in type(rows[0]).objects.filter(pk__in=[row.pk for row in rows]).order_by("pk")
        ]

    def without_keys(rows: list[list[Any]], keys: list[Any]) -> Any:
        return sorted(repr([v for v in row if v not in keys]) for row in rows)

    keys = [row.pk for row in (*purchases, *others, *entries, *their_entries)]
    assert without_keys(stored(purchases), keys) == without_keys(stored(others), keys)
    assert without_keys(stored(entries), keys) == without_keys(stored(their_entries), keys)
    for row in (*purchases, *entries):
        found = type(row).objects.get(pk=row.pk)
        for field in row._meta.concrete_fields:
            assert getattr(found, field.attname) == getattr(row, field.attname), field


def test_many_rows_are_one_statement_however_many_they_are() -> None:
    user, offer, now = UserFactory(), OfferFactory(), timezone.now()
    entries, purchases = Insert(PurchaseTransition), Insert(Purchase)
    for number in range(1, 10):
        rows = [
            Purchase(
                user=user, offer=offer, event=offer.event, offer_title="one", quantity=1,
                unit_price=1, total_price=1, currency="USD", status="reserved",
                reserved_until=now, created_at=now,
            )
            for _ in range(number)
        ]  # fmt: skip
        steps = [PurchaseTransition(purchase=row, name="hold", created_at=now) for row in rows]
        entries.run_all_with(purchases, rows, steps)
    assert PurchaseTransition.objects.count() == Purchase.objects.count() == 45
    own = [said for said in prepared_statements() if "json_populate_recordset" in said]
    assert len(own) == 1


def test_value_that_json_has_not_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(TypeError, match="set"):
        Insert(Purchase)._json([Purchase(checkout_request={1})])


def test_column_is_among_the_values_of_a_list_of_any_length() -> None:
    users = UserFactory.create_batch(3)
    query = Row(
        lambda: User.objects.filter(Among("pk", "pks", IntegerField())).values_list("username")
    )
    names = [(user.username,) for user in users]
    for number in (0, *[1, 2, 3] * 5):
        found = query.all(pks=[user.pk for user in users[:number]])
        assert sorted(found) == sorted(names[:number])
    assert query.all(pks=[-1, 2**31 - 1]) == []
    own = [said for said in prepared_statements() if "username" in said and "= ANY(" in said]
    assert len(own) == 1


def test_statement_of_a_free_purchase_has_no_more_values_than_psycopg_remembers() -> None:
    """One with more is read again, character by character, each time that it is sent."""
    purchase, entry = (Insert(model) for model in (Purchase, PurchaseTransition))
    values = len(purchase._fields) + 2 * len(entry._fields)
    assert values <= _queries.MAX_CACHED_STATEMENT_PARAMS


def test_insert_if_stores_its_row_only_with_the_change() -> None:
    purchase, now = PurchaseFactory(), timezone.now()
    rename = Update(
        lambda: (
            Purchase.objects.filter(pk=Given("pk", UUIDField()), quantity=1),
            {"offer_title": Given("title", TextField())},
        )
    )
    entries = Insert(PurchaseTransition)
    for title in ("changed", *[f"changed {number}" for number in range(7)]):
        entry = PurchaseTransition(
            purchase=purchase, name=title, to_status="reserved", source="tests", created_at=now
        )
        assert entries.run_if(rename, entry, pk=purchase.pk, title=title)
        assert PurchaseTransition.objects.get(name=title) == entry
        assert Purchase.objects.get().offer_title == title
    nobody = PurchaseTransition(purchase=purchase, name="nobody", to_status="reserved")
    assert not entries.run_if(rename, nobody, pk=uuid.uuid4(), title="nobody")
    assert nobody.pk is None
    assert nobody._state.adding
    assert not PurchaseTransition.objects.filter(name="nobody").exists()


def test_query_of_many_answers_with_all_rows_as_the_orm_would_have() -> None:
    purchase = PurchaseFactory(status="paid")
    queryset = PurchaseTransition.objects.only("name").order_by("pk")
    query = Query(lambda: queryset.filter(purchase=Given("purchase", UUIDField())))
    for _ in range(7):  # as text first, prepared later
        found = query.all(purchase=purchase.pk)
        assert len(found) > 1
        assert found == list(queryset.filter(purchase=purchase))
        assert found[0].get_deferred_fields() == queryset[0].get_deferred_fields()
    assert query.all(purchase=uuid.uuid4()) == []


def test_constraints_are_raised_as_django_raises_them() -> None:
    offer = OfferFactory(inventory_total=1)
    with pytest.raises(IntegrityError, match="offer_never_oversold"), transaction.atomic():
        Change(Offer).run(offer, {"inventory_sold": 2})


def test_change_writes_its_fields_and_no_other_row() -> None:
    first, second = OfferFactory.create_batch(2)
    Change(Offer).run(first, {"title": "changed", "price": 7})
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.title, first.price) == ("changed", 7)
    assert second.title != "changed"


@pytest.mark.django_db(transaction=True)
def test_lock_outside_a_transaction_is_refused() -> None:
    offer = OfferFactory()
    with transaction.atomic():
        inventory.lock(offer.pk)  # its SQL is made
    with pytest.raises(TransactionManagementError):
        inventory.lock(offer.pk)


@pytest.mark.django_db(transaction=True)
def test_threads_that_come_first_at_once_get_the_same_statement() -> None:
    made: list[Any] = []

    def build() -> Any:
        made.append(threading.get_ident())
        return Event.objects.filter(pk=Given("pk", UUIDField()))

    query, event = Query(build), EventFactory()
    gate = threading.Barrier(8)
    found: list[Any] = []

    def ask() -> None:
        gate.wait()
        found.append(query.first(pk=event.pk))
        connection.close()

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [event] * 8
    assert len(made) == 1


@pytest.mark.django_db(transaction=True)
def test_statement_survives_a_migration_that_changes_a_column() -> None:
    """PostgreSQL refuses what was prepared before: "cached plan must not change result type"."""
    query, event = Query(lambda: Event.objects.filter(pk=Given("pk", UUIDField()))), EventFactory()
    for _ in range(10):
        query.first(pk=event.pk)
    try:
        change_type("varchar(300)")
        assert query.first(pk=event.pk) == event
        for _ in range(10):
            query.first(pk=event.pk)
        change_type("varchar(250)")
        with pytest.raises(NotSupportedError), transaction.atomic():
            query.first(pk=event.pk)
        with transaction.atomic():
            assert query.first(pk=event.pk) == event
    finally:
        change_type("varchar(200)")


def change_type(of_title: str) -> None:
    def alter() -> None:  # over another connection, as `migrate` does
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE offers_event ALTER COLUMN title TYPE {of_title}")
        connection.close()

    thread = threading.Thread(target=alter)
    thread.start()
    thread.join()


SAMPLES = (True, 7, "ä", uuid.uuid4(), None, "", 2**31 - 1)


@pytest.mark.parametrize("model", apps.get_models(), ids=lambda model: model._meta.label)
def test_plain_values_are_stored_as_the_orm_stores_them(model: Any) -> None:
    for field in model._meta.concrete_fields:
        column = _Column(field)
        for value in SAMPLES:
            if value is None or type(value) is column._plain:
                stored = column.stored(value, connection)
                as_orm = field.get_db_prep_save(value, connection)
                assert (type(stored), stored) == (type(as_orm), as_orm), field
