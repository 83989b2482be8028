"""A hundred visitors at once who look at the first page of an event's offers."""

import http.client
import json
from typing import Any

from tests.bench.load.bench import Bench, request
from tests.bench.load.data import LISTS
from tests.bench.load.measured import Measured, Wrong
from tests.bench.load.rows import Comparison, Family, Floor, Goal, Row, Work, WorkOn

VISITORS = 100
SECONDS = 2.0
MOST = 12_000
ATTENDEES = 1_000  # the buyers with the first ids are registered for every event


def _list(event: str, *, as_attendee: bool = False) -> WorkOn:
    path = f"/api/v1/offers/?event={event}"

    def work(bench: Bench, database: str) -> Measured:
        if bench.is_gentle:
            _compare(bench, database, path, event)
        requests = [request("GET", path)] * MOST
        if as_attendee:
            tokens = [bench.token(1 + number) for number in range(min(ATTENDEES, bench.buyers))]
            own = [request("GET", path, f"Authorization: Bearer {token}") for token in tokens]
            requests = own * (MOST // len(own))
        return bench.load(
            database,
            requests,
            connections=VISITORS,
            seconds=bench.seconds(SECONDS),
            expect={200},
        )

    return work


def _bare(event: str) -> Work:
    def work(bench: Bench) -> Measured:
        return bench.load(
            "floor",
            [request("GET", f"/offers/{event}")] * MOST,
            connections=VISITORS,
            seconds=bench.seconds(SECONDS),
            expect={200},
        )

    return work


def _compare(bench: Bench, database: str, path: str, event: str) -> None:
    """Raise ``Wrong`` unless the service and the floor answer the same offers, field by field."""
    ours = _answer(bench.stack.ports[database][0], path)["results"]
    bare = _answer(bench.stack.ports["floor"][0], f"/offers/{event}")["results"]
    if ours != bare:
        different = next((pair for pair in zip(ours, bare, strict=False) if pair[0] != pair[1]), ())
        raise Wrong(
            f"The floor's list of {event} is another: {len(bare)} offers instead of {len(ours)}, "
            f"{json.dumps(different, indent=1)}"
        )


def _answer(port: int, path: str) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path, headers={"X-Forwarded-Proto": "https"})
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def _rows() -> tuple[Row, ...]:
    rows = []
    for count in LISTS:
        for who, as_attendee in (("", False), ("-attendee", True)):
            name = f"list-{count}"
            rows.append(
                Row(
                    f"{name}{who}",
                    f"{VISITORS} concurrent lists of an event with {count:,} offers, "
                    + ("attendees with tokens" if as_attendee else "anonymous"),
                    _list(name, as_attendee=as_attendee),
                    (f"bare {name}",),
                    (Goal("ratio", least=0.6),),
                )
            )
    return tuple(rows)


FAMILY = Family(
    rows=_rows(),
    floors=tuple(
        Floor(f"bare list-{count}", "one prepared query and orjson", _bare(f"list-{count}"))
        for count in LISTS
    ),
    comparisons=tuple(
        Comparison(
            f"processor time, against that of {LISTS[0]} offers{who}",
            f"list-{LISTS[0]}{suffix}",
            f"list-{LISTS[-1]}{suffix}",
            most=1.2,
        )
        for suffix, who in (("", ""), ("-attendee", ""))
    ),
    growth=1.2,
)
