"""The start page: its charts are drawn, and each can be read and taken along without them."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from django.urls import reverse
from playwright.sync_api import expect

from tests.browser.shop import Shop
from tests.browser.visitor import PHONE, Visitor

pytestmark = pytest.mark.django_db(transaction=True)

# Whether a canvas has anything on it besides what it began with.
DRAWN = """canvas => canvas.getContext('2d')
  .getImageData(0, 0, canvas.width, canvas.height).data.some(value => value)"""


def test_charts_are_drawn_and_each_has_a_table_and_a_file(visit: Callable[..., Visitor]) -> None:
    visitor = visit(Shop().manager)
    page = visitor.page
    visitor.open(reverse("admin:index"))
    charts = page.locator(".dashboard-card", has=page.locator("canvas"))
    expect(charts).to_have_count(2)  # revenue in the one currency there is, and units
    for chart in charts.all():
        canvas = chart.locator("canvas")
        assert canvas.evaluate(DRAWN)
        assert canvas.get_attribute("aria-label")
        expect(chart.get_by_role("table")).to_be_hidden()
        chart.locator("summary").click()
        expect(chart.get_by_role("table")).to_be_visible()

        with page.expect_download() as started:
            chart.get_by_role("link", name="CSV").click()
        text = Path(started.value.path()).read_text(encoding="utf-8-sig")
        rows = list(csv.reader(io.StringIO(text)))
        shown = chart.locator("thead th").all_inner_texts()
        assert rows[0] == shown
        assert len(rows) == 1 + chart.locator("tbody tr").count()
    visitor.look("dashboard_with_tables")
    visitor.resize(PHONE)
    visitor.look("dashboard_with_tables")
