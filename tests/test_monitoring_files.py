"""docs/monitoring and docs/metrics.md say nothing that isn't so: every name is one of /metrics."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

DOCS = Path(__file__).resolve().parents[1] / "docs"
DASHBOARD = json.loads((DOCS / "monitoring" / "dashboard.json").read_text(encoding="utf-8"))
ALERTS = yaml.safe_load((DOCS / "monitoring" / "alerts.yml").read_text(encoding="utf-8"))
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
# Prometheus' own, about its scrapes.
BUILT_IN = {"up"}
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",), "gauge": ("",)}


@pytest.fixture
def exposed(client: Client, db: None) -> set[str]:
    """The series that /metrics has, or will once something is counted."""
    page = client.get("/metrics").content.decode()
    return {
        family.name + suffix
        for family in text_string_to_metric_families(page)
        for suffix in SUFFIXES.get(family.type, ("",))
    }


def selectors(expression: str) -> Iterator[promql_parser.VectorSelector]:
    """The series that an expression asks for; raises for one that Prometheus couldn't read."""
    found: list[promql_parser.VectorSelector] = []

    def visit(part: Any) -> None:
        if isinstance(part, promql_parser.MatrixSelector):
            found.append(part.vector_selector)
        elif isinstance(part, promql_parser.VectorSelector):
            found.append(part)

    promql_parser.walk(promql_parser.parse(expression), visit)
    assert found, expression
    yield from found


EXPRESSIONS = [rule["expr"] for rule in RULES] + [
    target["expr"].replace("$__rate_interval", "5m")
    for panel in PANELS
    for target in panel["targets"]
]


def test_every_expression_asks_for_series_that_there_are(exposed: set[str]) -> None:
    asked = {str(series.name) for expression in EXPRESSIONS for series in selectors(expression)}
    assert sorted(asked - exposed - BUILT_IN) == []


def test_every_metric_of_ours_is_described_and_no_other(exposed: set[str]) -> None:
    text = (DOCS / "metrics.md").read_text(encoding="utf-8")
    described = set(re.findall(r"^\| `(offers_\w+)(?:\{\w+\})?`", text, re.MULTILINE))
    ours = {name for name in exposed if name.startswith("offers_")}
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in ours}
    assert described == families


def test_every_figure_of_ours_is_on_the_dashboard(exposed: set[str]) -> None:
    shown = {
        re.sub(r"_(bucket|sum|count)$", "", str(series.name))
        for panel in PANELS
        for target in panel["targets"]
        for series in selectors(target["expr"].replace("$__rate_interval", "5m"))
    }
    ours = {name for name in exposed if name.startswith("offers_")}
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in ours} <= shown


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_alert_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"Offers[A-Z]\w+", rule["alert"])
    assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert set(rule["annotations"]) == {"summary", "runbook"}
    assert len(rule["annotations"]["runbook"]) > 40


def test_alerts_have_names_of_their_own() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(names) == len(set(names))
    assert len({group["name"] for group in ALERTS["groups"]}) == len(ALERTS["groups"])


def test_dashboard_is_one_that_grafana_takes() -> None:
    assert {"title", "uid", "schemaVersion", "panels", "templating", "time"} <= set(DASHBOARD)
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    (variable,) = DASHBOARD["templating"]["list"]
    assert (variable["type"], variable["query"]) == ("datasource", "prometheus")
    for panel in PANELS:
        assert panel["title"]
        # Whoever imports it chooses the Prometheus; no id of ours is in it.
        sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        assert all(source["uid"] == "${datasource}" for source in sources)
        references = [target["refId"] for target in panel["targets"]]
        assert len(references) == len(set(references))


def test_panels_of_the_dashboard_dont_cover_one_another() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]
