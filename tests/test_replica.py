"""Lists are read from a replica, as long as it is there and near; everything else is not."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from offers_project.local.children import Guard
from tests.sandbox_process import wait_for
from tests.scraped import parsed, value
from tests.service_processes import Processes, http
from tests.streaming import Primary, Replica

SECONDS = 60.0
OLD, NEW = "As it was", "As it is by now"
PREPARE = f"""
from django.contrib.auth.models import User
from offers.models import Event, Offer, Organization
User.objects.create_user("buyer", password="buyer")
event = Event.objects.create(
    organization=Organization.objects.create(name="o", slug="o"), title="Fest", slug="fest"
)
print(Offer.objects.create(event=event, title="{OLD}", price=0, currency="USD", inventory_total=5,
      offer_type="MERCHANDISE").pk)
"""


class Shop:
    """A web server in front of a primary with a replica."""

    def __init__(self, folder: Path) -> None:
        self.guard = Guard()
        self.folder = folder
        self.primary = Primary(folder / "primary", guard=self.guard)
        self.primary.start()
        self.replica = Replica(folder / "replica", of=self.primary, guard=self.guard)
        env = {"DATABASE_URL": self.primary.url, "SECURE_SSL_REDIRECT": "False"}
        processes = Processes(folder, **env)
        processes.manage("migrate", "--noinput")
        self.offer = processes.manage("shell", "--verbosity=0", code=PREPARE).split()[-1]
        processes.guard.close()
        self.replica.start()

    @contextmanager
    def web(self, *, most_seconds_behind: float = 3600) -> Iterator["Web"]:
        """The web server, its replica's replay going on."""
        self.on(self.replica, "SELECT pg_wal_replay_resume()")
        self.rename(OLD)
        processes = Processes(
            self.folder,
            DATABASE_URL=self.primary.url,
            DATABASE_REPLICA_URL=self.replica.url,
            DATABASE_REPLICA_MAX_LAG=str(most_seconds_behind),
        )
        try:
            processes.start_web(workers=1)
            processes.wait_until_up()
            web = Web(processes)
            wait_for(lambda: OLD in web.page(), SECONDS)
            before = web.reads("replica")
            wait_for(lambda: web.page() and web.reads("replica") > before, SECONDS)
            yield web
        finally:
            processes.stop()

    def on(self, server: Primary | Replica, query: str, *parameters: Any) -> None:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(query, parameters)

    def pause(self) -> None:
        """Let the replica stand still: it answers, and learns nothing new."""
        self.on(self.replica, "SELECT pg_wal_replay_pause()")

    def rename(self, title: str) -> None:
        self.on(self.primary, "UPDATE offers_offer SET title = %s", title)

    def stop(self) -> None:
        for server in (self.replica, self.primary):
            server.stop()
        self.guard.close()


class Web:
    """What visitors of the web server see."""

    def __init__(self, processes: Processes) -> None:
        self.url = processes.url

    def page(self) -> str:
        answer = http("GET", f"{self.url}/events/fest/offers")
        assert answer.status_code == 200
        return answer.text

    def reads(self, database: str) -> float:
        page = http("GET", f"{self.url}/metrics").text
        return value(parsed(page), "offers_replica_reads_total", database=database) or 0

    def call(self, method: str, path: str, **options: Any) -> Any:
        answer = http(method, f"{self.url}/api/v1/{path}", **options)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    folder = Path(tempfile.mkdtemp(prefix="offers-replica-"))
    it = Shop(folder)
    yield it
    it.stop()
    shutil.rmtree(folder, ignore_errors=True)


def test_pages_of_offers_and_events_are_read_from_the_replica(shop: Shop) -> None:
    with shop.web() as web:
        shop.pause()
        shop.rename(NEW)
        assert OLD in web.page()
        assert NEW not in web.page()
        before = web.reads("replica")
        assert "Fest" in http("GET", f"{web.url}/").text
        assert web.reads("replica") == before + 1
        shop.on(shop.replica, "SELECT pg_wal_replay_resume()")
        wait_for(lambda: NEW in web.page(), SECONDS)
        assert web.reads("default") == 0


def test_what_is_bought_is_bought_and_shown_from_the_primary(shop: Shop) -> None:
    with shop.web() as web:
        shop.pause()
        login = {"username": "buyer", "password": "buyer"}
        token = web.call("POST", "auth/token/", json=login)["access"]
        mine = {"headers": {"Authorization": f"Bearer {token}", "Idempotency-Key": "one"}}
        wanted = {"offer": shop.offer, "quantity": 2}
        bought = web.call("POST", "purchases/", json=wanted, **mine)
        assert bought["status"] == "paid"
        assert web.call("POST", "purchases/", json=wanted, **mine)["id"] == bought["id"]
        assert web.call("GET", f"purchases/{bought['id']}/", **mine)["status"] == "paid"
        (listed,) = web.call("GET", "purchases/", **mine)["results"]
        assert listed["id"] == bought["id"]
        asked = web.call("GET", f"offers/{shop.offer}/availability/?quantity=4", **mine)
        assert (asked["inventory_available"], asked["reason"]) == (3, "insufficient_inventory")
        with psycopg.connect(shop.replica.url) as replica:
            (count,) = replica.execute("SELECT count(*) FROM purchases_purchase").fetchone() or ()
        assert count == 0


def test_replica_that_falls_behind_is_left_until_it_has_caught_up(shop: Shop) -> None:
    with shop.web(most_seconds_behind=2) as web:
        shop.pause()
        shop.rename(NEW)
        wait_for(lambda: NEW in web.page(), SECONDS)
        assert web.reads("default") > 0
        shop.on(shop.replica, "SELECT pg_wal_replay_resume()")
        before = web.reads("replica")
        wait_for(lambda: web.page() and web.reads("replica") > before, SECONDS)


def test_lists_answer_when_the_replica_is_killed_and_when_it_is_back(shop: Shop) -> None:
    with shop.web() as web:
        assert shop.replica.child is not None
        shop.replica.child.kill()
        shop.rename(NEW)
        for _ in range(20):
            assert NEW in web.page()
        ready = http("GET", f"{web.url}/readyz")
        assert (ready.status_code, ready.json()["postgresql"]) == (200, "ok")
        shop.replica.start()
        before = web.reads("replica")
        wait_for(lambda: web.page() and web.reads("replica") > before, SECONDS)


def test_query_that_the_replica_cancels_is_repeated_on_the_primary(shop: Shop) -> None:
    """What the replica has to replay may be in a query's way: it ends the query after a while."""
    code = """
from django.db import connections
from offers import replica
from offers.models import Event
asked = []
def work(database):
    asked.append(database)
    titles = list(Event.objects.using(database).values_list("title", flat=True))
    if database == "replica":
        with connections[database].cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    return titles
print(replica.read(work), asked, replica.reading_database())
"""
    processes = Processes(
        shop.folder, DATABASE_URL=shop.primary.url, DATABASE_REPLICA_URL=shop.replica.url
    )
    said = processes.manage("shell", "--verbosity=0", code=code)
    processes.guard.close()
    assert said.strip().splitlines()[-1] == "['Fest'] ['replica', 'default'] default"


def test_database_that_is_no_replica_is_not_read_from(shop: Shop) -> None:
    processes = Processes(
        shop.folder, DATABASE_URL=shop.primary.url, DATABASE_REPLICA_URL=shop.primary.url
    )
    code = "from offers import replica; print(replica.reading_database())"
    said = processes.manage("shell", "--verbosity=0", code=code)
    processes.guard.close()
    assert said.split()[-1] == "default"
