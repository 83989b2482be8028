"""No page of the admin asks more queries for having more rows; `make bench-admin` times them."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.utils import timezone

from purchases import reconciliation
from purchases.models import Purchase
from tests.bench import data, report
from tests.bench.data import Size
from tests.bench.walk import Visit, Visitor

# Hundreds of pages, opened before the first test.
pytestmark = [pytest.mark.django_db, pytest.mark.timeout(600)]

FEW = Size(organizations=3, events=6, users=60, offers=24, purchases=150)
# No list reaches a hundred rows with either: what fills the page is what is counted for.
MANY = Size(organizations=3, events=6, users=60, offers=72, purchases=450)
LOOKERS = (data.SUPERUSER, data.MANAGER)


@pytest.fixture(scope="module")
def visits(django_db_setup: None, django_db_blocker: Any) -> Iterator[dict[str, list[Visit]]]:
    """Every page, with few rows and with three times as many."""
    with django_db_blocker.unblock():
        yield {"few": _visits(FEW), "many": _visits(MANY)}


def _visits(size: Size) -> list[Visit]:
    """Everything is made, looked at and rolled back."""
    with transaction.atomic():
        data.make(size, now=timezone.now(), say=lambda text: None)
        assert list(reconciliation.counter_differences()) == []
        assert Purchase.objects.count() == size.purchases
        # What a process looks up once isn't the page's.
        ContentType.objects.get_for_models(*apps.get_models())
        found = [visit for who in LOOKERS for visit in Visitor(who).everything(brief=True)]
        transaction.set_rollback(True)
    return found


def most(visits: list[Visit]) -> dict[tuple[str, str, str], int]:
    """The most queries of each kind of page."""
    worst: dict[tuple[str, str, str], int] = {}
    for visit in visits:
        if visit.kind in report.EXEMPT:
            continue
        kind = (visit.who, visit.subject, visit.kind)
        worst[kind] = max(worst.get(kind, 0), len(visit.queries))
    return worst


def test_every_page_of_the_registry_is_opened(visits: dict[str, list[Visit]]) -> None:
    opened = {visit.subject for visit in visits["few"] if visit.who == data.SUPERUSER}
    assert {model._meta.label for model in admin.site._registry} <= opened
    assert ("site", "index") in {(visit.subject, visit.kind) for visit in visits["few"]}
    broken = [(visit.url, visit.status) for visit in visits["many"] if visit.status >= 500]
    assert broken == []


def test_no_page_asks_twenty_queries(visits: dict[str, list[Visit]]) -> None:
    too_many = {
        page: count for page, count in most(visits["many"]).items() if count > report.MOST_QUERIES
    }
    assert too_many == {}


def test_no_page_asks_more_queries_for_more_rows(visits: dict[str, list[Visit]]) -> None:
    few, many = most(visits["few"]), most(visits["many"])
    # The keys of a list's page, once there is a second one, are a query of their own.
    more = {page: (few[page], many[page]) for page in few if many.get(page, 0) > few[page] + 1}
    assert more == {}
