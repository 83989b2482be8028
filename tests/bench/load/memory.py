"""A hundred thousand requests of all kinds, and how large the web server has become by then."""

from itertools import cycle, islice

from tests.bench.load import cpu
from tests.bench.load.bench import Bench, request
from tests.bench.load.data import FREE, HOT, LISTS, id_of
from tests.bench.load.measured import Measured
from tests.bench.load.rows import Family, Goal, Row
from tests.bench.load.sold_out import sold_out_offer

REQUESTS, REQUESTS_QUICK = 100_000, 500
LOOKS = 10
AT_ONCE = 50
WARM_UP = 200
WEB = "memory"


def _serve(bench: Bench, database: str) -> Measured:
    """A web server of its own, so that what others rows asked isn't in it."""
    if bench.is_warming_up:
        return Measured(0, 1.0, {})
    refused = sold_out_offer(bench, database)
    bench.stack.start_web(database, name=WEB)
    total = REQUESTS_QUICK if bench.quick else REQUESTS
    rounds, sizes = [], []
    try:
        bench.load(WEB, _mixed(bench, WARM_UP, refused), connections=8, expect={200, 201, 409})
        sizes.append(_size(bench))
        for _ in range(LOOKS):
            requests = _mixed(bench, total // LOOKS, refused)
            rounds.append(bench.load(WEB, requests, connections=AT_ONCE, expect={200, 201, 409}))
            sizes.append(_size(bench))
    finally:
        bench.stack.stop_web(WEB)
    measured = Measured(
        answers=sum(one.answers for one in rounds),
        seconds=sum(one.seconds for one in rounds),
        cpu={group: sum(one.cpu[group] for one in rounds) for group in rounds[0].cpu},
        latencies=[latency for one in rounds for latency in one.latencies],
    )
    measured.also["MB"] = sizes[-1]
    measured.also["growth over the last half, %"] = 100 * (sizes[-1] / sizes[LOOKS // 2] - 1)
    measured.also |= {f"MB after {n * total // LOOKS:,}": size for n, size in enumerate(sizes)}
    return measured


def _size(bench: Bench) -> float:
    """Of the largest process, in MB."""
    return round(max(map(cpu.resident_megabytes, bench.stack.web_processes(WEB))), 1)


def _mixed(bench: Bench, count: int, sold_out: object) -> list[bytes]:
    """Of ten requests six for lists, one of them with a token, one for an event, two purchases of
    what is sold out, and one of what isn't."""
    lists = [request("GET", f"/api/v1/offers/?event=list-{n}") for n in LISTS]
    tenth = count // 10
    kinds = [
        *(cycle(lists) for _ in range(5)),
        (
            request(
                "GET",
                f"/api/v1/offers/?event=list-{LISTS[0]}",
                f"Authorization: Bearer {bench.token(bench.next_buyer())}",
            )
            for _ in range(tenth)
        ),
        cycle([request("GET", f"/api/v1/events/list-{LISTS[0]}/")]),
        iter(bench.purchases(sold_out, tenth)),
        iter(bench.purchases(sold_out, tenth)),
        iter(bench.purchases(id_of(HOT, FREE), tenth)),
    ]
    return [bytes_ for ten in islice(zip(*kinds, strict=False), tenth) for bytes_ in ten]


FAMILY = Family(
    rows=(
        Row(
            "memory",
            f"{REQUESTS:,} requests of all kinds",
            _serve,
            (),
            (
                Goal("MB", most=120),
                Goal("growth over the last half, %", most=1),
            ),
            rounds=1,
        ),
    ),
    floors=(),
)
