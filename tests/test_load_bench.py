"""That the parts of `make bench` count right; the benchmark itself runs in CI, not here."""

import importlib.util
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import stripe

from offers_project.local.environment import ROOT
from tests.bench.load import cpu, figures
from tests.bench.load.bench import request
from tests.bench.load.figures import Figure, judged
from tests.bench.load.load_generator import BrokenAnswer, Job, LoadGenerator
from tests.bench.load.measured import Measured
from tests.bench.load.row_lock import held_in
from tests.bench.load.rows import Family, Floor, Goal, Row
from tests.bench.load.stack import Image
from tests.bench.load.stripe_responder import State

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="epoll and /proc")
LARGE = 3_000_000  # bytes: more than one read


class Handler(BaseHTTPRequestHandler):
    """Answers `/409` with 409, `/large` with much, and closes the connection at `/closed`."""

    protocol_version = "HTTP/1.1"
    connections: ClassVar[Counter[int]] = Counter()  # by the server's port

    def setup(self) -> None:
        super().setup()
        self.connections[self.connection.getsockname()[1]] += 1

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        name = self.path.strip("/")
        if name == "closed":
            self.close_connection = True
            return
        body = b"x" * (LARGE if name == "large" else 5)
        self.send_response(int(name) if name.isdigit() else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serving() as port:
        yield port


@contextmanager
def serving() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def clients() -> Iterator[LoadGenerator]:
    generator = LoadGenerator()
    generator.start()
    yield generator
    generator.stop()


def asking(*paths: str) -> list[bytes]:
    return [request("POST", f"/{path}", body="{}") for path in paths]


@linux_only
def test_clients_count_every_answer_by_its_status(port: int, clients: LoadGenerator) -> None:
    requests = asking(*["201"] * 40, *["409"] * 30, *["large"] * 3)
    outcome = clients.run(Job([port], 7, requests))
    assert outcome.statuses == Counter({201: 40, 409: 30, 200: 3})
    assert len(outcome.latencies) == 73
    assert 0 < max(outcome.latencies) <= outcome.seconds
    assert outcome.examples[409].startswith(b"HTTP/1.1 409 ")


@linux_only
def test_clients_send_nothing_more_when_time_is_up(port: int, clients: LoadGenerator) -> None:
    requests = asking(*["201"] * 100_000)
    outcome = clients.run(Job([port], 2, requests, seconds=0.05))
    assert 2 <= outcome.statuses[201] < len(requests)


@linux_only
def test_each_server_has_as_many_connections_as_the_other(clients: LoadGenerator) -> None:
    with serving() as one, serving() as other:
        assert clients.run(Job([one, other], 7, asking(*["201"] * 7))).statuses == {201: 7}
    assert (Handler.connections[one], Handler.connections[other]) == (4, 3)


@linux_only
def test_a_closed_connection_breaks_the_run_and_the_next_one_is_whole(
    port: int, clients: LoadGenerator
) -> None:
    with pytest.raises(BrokenAnswer, match="closed"):
        clients.run(Job([port], 2, asking("201", "closed", "201")))
    assert clients.run(Job([port], 2, asking("201", "201"))).statuses == {201: 2}


@linux_only
def test_clients_are_idle_while_the_processor_time_is_read(
    port: int, clients: LoadGenerator
) -> None:
    read: list[dict[str, float]] = []

    def look() -> None:
        read.append(cpu.seconds({"clients": [clients.pid]}))

    clients.run(Job([port], 4, asking(*["201"] * 200)), before=look, after=look)
    before, after = read
    assert after["clients"] >= before["clients"]


BURN = "import time\nwhile time.process_time() < 0.4: pass\n"
PARENT = f"""
import os, subprocess, sys
subprocess.run([sys.executable, "-c", {BURN!r}], check=True)
print(sum(os.times()[:4]), flush=True)
sys.stdin.read()
"""


@linux_only
def test_processor_time_includes_that_of_children_that_have_ended() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    with parent:
        said = float(parent.stdout.readline())
        took = cpu.seconds({"it": [parent.pid], "the tests": [os.getpid()]})
        parent.stdin.close()
    # Up to a tick is lost in each of the four figures, and it went on a little after it spoke.
    assert said >= 0.3
    assert took["it"] == pytest.approx(said, abs=0.1)
    assert took["the tests"] >= took["it"]  # whose child it is


@linux_only
def test_the_canned_stripe_is_good_enough_for_stripes_own_library() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.bench.load.stripe_responder"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as responder:
        assert responder.stdout is not None
        address = f"http://127.0.0.1:{responder.stdout.readline().split()[-1]}"
        client = stripe.StripeClient("sk_test_bench", base_addresses={"api": address})
        asked = {
            "mode": "payment",
            "client_reference_id": "purchase 1",
            "expires_at": 2_000_000_000,
            "success_url": "https://shop.example/success?session_id={CHECKOUT_SESSION_ID}",
            "line_items": [
                {
                    "price_data": {
                        "currency": "eur",
                        "unit_amount": 2000,
                        "product_data": {"name": "Recordings"},
                    },
                    "quantity": 3,
                }
            ],
        }
        one, other = (client.v1.checkout.sessions.create(asked) for _ in range(2))
        ended = client.v1.checkout.sessions.expire(one.id)
        responder.kill()
    assert one.id != other.id
    assert (one.amount_total, one.currency, one.status) == (6000, "eur", "open")
    assert (one.client_reference_id, one.expires_at) == ("purchase 1", 2_000_000_000)
    assert one.url == f"https://checkout.stripe.com/c/pay/{one.id}"
    assert (ended.id, ended.status) == (one.id, "expired")


def test_the_canned_stripe_refuses_beyond_its_limit() -> None:
    state = State()
    state.answer(b"POST", b"/bench", b"limit=5")
    statuses = [
        state.answer(b"POST", b"/v1/checkout/sessions/cs_test_1/expire", b"")[0] for _ in range(50)
    ]
    assert statuses.count(429) == state.refused > 0
    assert state.requests == 50


LOG = """\
100.000 [7] LOG:  duration: 0.1 ms  statement: BEGIN
100.001 [7] LOG:  duration: 0.1 ms  statement: SELECT 1 FROM "offers_offer"
100.002 [8] LOG:  duration: 0.2 ms  execute <unnamed>: SELECT "offers_offer"."id" FROM \
"offers_offer" WHERE "offers_offer"."id" = $1 FOR NO KEY UPDATE OF "offers_offer"
\tof a statement with lines
100.003 [7] LOG:  duration: 3.0 ms  statement: SELECT "offers_offer"."id" FROM "offers_offer" \
WHERE "offers_offer"."id" = '1' FOR NO KEY UPDATE
100.005 [8] LOG:  duration: 0.3 ms  statement: COMMIT
100.006 [9] LOG:  duration: 0.3 ms  statement: COMMIT
100.009 [7] LOG:  duration: 0.3 ms  execute s_1: COMMIT
"""
AT_ONCE = """\
100.010 [7] LOG:  duration: 4.0 ms  statement: SELECT 1 FROM "offers_offer" FOR UPDATE; COMMIT
100.012 [8] LOG:  duration: 5.0 ms  statement: SELECT 1 FROM "offers_offer" FOR UPDATE; COMMIT
100.020 [9] LOG:  duration: 3.0 ms  statement: SELECT 1 FROM "offers_offer" FOR UPDATE; COMMIT
"""


def test_a_row_is_held_from_the_locking_statement_to_the_end_of_its_sessions_commit(
    tmp_path: Path,
) -> None:
    log = tmp_path / "postgres.log"
    log.write_text("100.001 [8] LOG:  earlier\n" + LOG, encoding="utf-8")
    held = held_in(log, begin=0)
    assert held == pytest.approx([0.003, 0.006])


def test_a_row_that_is_locked_with_the_commit_is_held_from_when_it_was_free(tmp_path: Path) -> None:
    log = tmp_path / "postgres.log"
    log.write_text(AT_ONCE, encoding="utf-8")
    assert held_in(log, begin=0) == pytest.approx([0.004, 0.002, 0.003])


def measured(rate: float) -> Measured:
    return Measured(answers=100, seconds=100 / rate, cpu={"web": 1.0, "clients": 0.25})


def test_goals_are_judged_by_the_median_ratio_of_rounds() -> None:
    def nothing(*_: object) -> Measured:
        raise AssertionError("nothing is measured here")

    family = Family(
        rows=(Row("row", "Row", nothing, ("floor",), (Goal("ratio", least=0.7),)),),
        floors=(Floor("floor", "Floor", nothing),),
    )
    results = {
        "row, small": [measured(150), measured(150), measured(150)],
        "row, large": [measured(80), measured(150), measured(75)],
        "floor": [measured(100), measured(100), measured(150)],
    }
    ratio, slower = judged(family, results, ["small", "large"])
    assert ratio.figure.rounds == pytest.approx((0.8, 1.5, 0.5))
    assert ratio.is_reached
    assert (ratio.what, ratio.goal) == ("ratio to floor", "at least 0.7")
    assert slower.what == figures.SLOWER
    assert slower.figure.median == pytest.approx(1.875)
    assert not slower.is_reached


def test_a_figure_is_written_as_its_median_with_its_spread() -> None:
    assert Figure((3.0, 1.0, 2.0)).written(1) == "2.0 (1.0 to 3.0)"
    assert Figure((1234.5,)).written(0) == "1,234"


def test_the_clients_part_is_of_the_time_of_all() -> None:
    assert measured(100).clients_share == pytest.approx(0.2)
    assert measured(100).cpu_ms("web") == pytest.approx(10.0)


def test_the_benchmark_starts_the_web_server_as_the_image_does() -> None:
    image = Image()
    command = image.command(port=4711)
    assert command[1:3] == ["-m", "granian"]
    assert command[command.index("--port") + 1] == "4711"
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[-1] == "offers_project.wsgi:application"
    assert int(image.env["GRANIAN_WORKERS"]) > 0
    assert image.command(port=1, application="x:y")[3:-1] == image.command(port=1)[3:-1]


@pytest.mark.parametrize(("module", "is_there"), [("rich", False), ("numpy", False), ("jwt", True)])
def test_the_benchmarks_web_server_has_only_what_production_installs(
    module: str, is_there: bool
) -> None:
    """Libraries load some of the others when they find them, megabytes of them."""
    assert importlib.util.find_spec(module), "not installed here, so this shows nothing"
    found = subprocess.run(
        [sys.executable, "-c", f"import {module}"],
        env={**os.environ, **Image().env},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (found.returncode == 0) == is_there, found.stderr
    assert ("not in requirements.txt" in found.stderr) != is_there
