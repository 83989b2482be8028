"""PostgreSQL is restarted, killed, or drops its connections under the running service."""

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
import requests
from celery import Celery

from offers_project.local.children import Child
from offers_project.local.postgres import THROWAWAY, Postgres
from offers_project.local.valkey import ValkeyProcess
from tests.conftest import WEBHOOK_SECRET, sign
from tests.sandbox_process import SandboxProcess, wait_for
from tests.service_processes import Processes, at_the_same_time, http

pytestmark = [pytest.mark.timeout(180), pytest.mark.xdist_group("database outage")]

# What a person, a program, Stripe and staff ask for.
PATHS = (
    "/",
    "/events/demo-conf/offers",
    "/purchases",
    "/admin/",
    "/api/v1/offers/?event=demo-conf",
)


@dataclass
class Stack:
    """The service on a PostgreSQL of its own, which may be stopped and started."""

    postgres: Postgres
    processes: Processes
    sandbox: SandboxProcess
    web: Child
    worker: Child
    broker: str

    def get(self, path: str, **options: Any) -> requests.Response:
        return http("GET", self.processes.url + path, allow_redirects=False, **options)

    def post(self, path: str, **options: Any) -> requests.Response:
        return http("POST", self.processes.url + path, allow_redirects=False, **options)

    def token(self, name: str) -> dict[str, str]:
        login = {"username": name, "password": name}
        answer = self.post("/api/v1/auth/token/", json=login)
        assert answer.status_code == 200, answer.text
        return {"Authorization": f"Bearer {answer.json()['access']}"}

    def is_ready(self) -> bool:
        return self.get("/readyz").status_code == 200

    def send_task(self, name: str) -> None:
        with Celery(broker=self.broker, set_as_current=False) as celery:
            celery.send_task(name, ignore_result=True)

    def worker_says(self, words: str) -> int:
        """How often its log has these words."""
        return self.processes.log("worker").count(words)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            return connection.execute(sql).fetchall()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A web server of one process and a worker with beat, as production has them."""
    folder = tmp_path_factory.mktemp("stack")
    folder.chmod(0o755)
    processes = Processes(folder)
    postgres = Postgres(
        folder / "postgres",
        log=folder / "postgres.log",
        guard=processes.guard,
        # What was committed must survive the server's death, as it does in production.
        settings=THROWAWAY | {"synchronous_commit": "on"},
    )
    valkey = ValkeyProcess(folder=folder / "valkey")
    sandbox = SandboxProcess()
    try:
        postgres.start()
        valkey.start()
        hook = f"{processes.url}/api/v1/webhooks/stripe/"
        sandbox.start(webhook_url=hook, webhook_secret=WEBHOOK_SECRET)
        processes.env |= {
            "DATABASE_URL": postgres.url,
            "REDIS_URL": f"{valkey.url}/0",
            "STRIPE_API_BASE": sandbox.base_url,
            "PURCHASE_RATE_LIMIT": "10000/m",
        }
        # Beside the migrations, to save time: neither asks the database for anything at its start.
        web = processes.start_web(workers=1)
        worker = processes.start_worker(beat=True)
        processes.manage("migrate", "--noinput")
        processes.manage("seed_demo")
        processes.wait_until_up()
        yield Stack(postgres, processes, sandbox, web, worker, processes.env["REDIS_URL"])
    finally:
        postgres.stop()
        processes.stop()
        sandbox.stop()
        valkey.stop()


def buy(stack: Stack, who: dict[str, str], **headers: str) -> requests.Response:
    offers = stack.get("/api/v1/offers/?event=demo-conf").json()["results"]
    return stack.post(
        "/api/v1/purchases/",
        json={"offer": offers[0]["id"], "quantity": 1},
        headers=who | headers,
    )


def works(stack: Stack, name: str) -> None:
    """Everything does: pages, admin, lists, a purchase, its webhook."""
    assert [stack.get(path).status_code for path in PATHS] == [200, 200, 302, 302, 200]
    who = stack.token(name)
    bought = buy(stack, who)
    assert bought.status_code == 201, bought.text
    stack.sandbox.control(f"sessions/{bought.json()['checkout_session_id']}/pay")
    path = f"/api/v1/purchases/{bought.json()['id']}/"
    wait_for(lambda: stack.get(path, headers=who).json()["status"] == "paid", 30)


def test_restart_is_503_everywhere_meanwhile_and_nothing_afterwards(stack: Stack) -> None:
    works(stack, "attendee1")
    who = stack.token("attendee1")
    cookies = logged_in(stack)
    worker_pid = stack.worker.pid

    stack.postgres.stop()
    wait_for(lambda: not stack.is_ready(), 30)

    for path in (*PATHS, "/admin/purchases/purchase/"):
        is_unavailable(stack.get(path, cookies=cookies))
    login = {"username": "attendee1", "password": "attendee1"}
    is_unavailable(stack.post("/api/v1/auth/token/", json=login))
    offer = {"offer": "00000000-0000-4000-8000-000000000000", "quantity": 1}
    is_unavailable(stack.post("/api/v1/purchases/", json=offer, headers=who))
    event = '{"id": "evt_1", "type": "ping", "created": 1, "data": {"object": {}}}'
    signed = {"Stripe-Signature": sign(event), "Content-Type": "application/json"}
    is_unavailable(stack.post("/api/v1/webhooks/stripe/", data=event, headers=signed))
    assert stack.get("/livez").status_code == 200
    # Threads that waited for a database that is away would keep this from being answered.
    with at_the_same_time(40) as crowd:
        crowd.map(lambda _: stack.get(PATHS[4]), range(200))
        assert stack.get("/livez").status_code == 200
        red = stack.get("/readyz")
    assert (red.status_code, red.json()["postgresql"]) == (503, "unavailable")
    assert int(red.headers["Retry-After"]) > 0
    stack.send_task("purchases.send_emails")
    wait_for(lambda: stack.worker_says("raised unexpected: OperationalError"), 60)
    succeeded = stack.worker_says("succeeded in")

    stack.postgres.start()
    wait_for(stack.is_ready, 30)
    works(stack, "attendee2")
    assert stack.get("/admin/", cookies=cookies).status_code == 200
    # Celery: the task of the outage failed, the next one works, in the same process.
    stack.send_task("purchases.send_emails")
    wait_for(lambda: stack.worker_says("succeeded in") > succeeded, 60)
    assert stack.worker.pid == worker_pid
    assert stack.worker.is_running()


def test_server_killed_under_load_costs_503_and_nothing_else(stack: Stack) -> None:
    """SIGKILL to the postmaster: its backends die, it recovers, and we were there all the time."""
    who = stack.token("attendee3")
    answers: Counter[int] = Counter()
    reached = threading.Event()
    over = threading.Event()

    def browse(number: int) -> None:
        while not over.is_set():
            answer = buy(stack, who) if number == 0 else stack.get(PATHS[number % len(PATHS)])
            answers[answer.status_code] += 1
            if answer.status_code == 503:
                reached.set()

    def browse_until_over(number: int) -> None:
        while not over.is_set():
            try:
                browse(number)
            except (ValueError, KeyError):
                continue  # the list that a purchase begins with was a 503

    with at_the_same_time(12) as crowd:
        browsing = [crowd.submit(browse_until_over, number) for number in range(12)]
        wait_for(lambda: answers[200] > 20, 30)
        assert stack.postgres.child is not None
        assert stack.postgres.child.pid is not None
        os.kill(stack.postgres.child.pid, signal.SIGKILL)
        try:
            wait_for(reached.is_set, 30)
            stack.postgres.child.kill()
            stack.postgres.start()
            wait_for(stack.is_ready, 30)
            served = answers[200]
            wait_for(lambda: answers[200] > served + 20, 30)
        finally:
            over.set()
    for done in browsing:
        done.result()
    # 409: one person may have three open holds.
    assert set(answers) <= {200, 201, 302, 409, 429, 503}, answers
    works(stack, "attendee4")


def test_connections_ended_by_the_server_are_replaced_unnoticed(stack: Stack) -> None:
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    waiting = f"SELECT count(*) {others} AND wait_event_type = 'Lock'"
    with at_the_same_time(12) as crowd:  # the pool grows: each waits with a connection of its own
        with psycopg.connect(stack.postgres.url) as locking:
            locking.execute("LOCK TABLE auth_user")
            logins = [
                crowd.submit(
                    stack.post,
                    "/api/v1/auth/token/",
                    json={"username": f"nobody{number}", "password": "x"},
                )
                for number in range(12)
            ]
            wait_for(lambda: stack.query(waiting)[0][0] >= 9)
        assert {login.result().status_code for login in logins} == {401}
    (many,) = stack.query(f"SELECT count(*) {others}")[0]
    assert many > 8
    # Waited for: one that is told and still lives would be taken for whole, and end in the answer.
    # One that the pool has closed meanwhile, since it has too many, is told nothing.
    told = stack.query(f"SELECT pid, pg_terminate_backend(pid, 10000) {others}")
    alive = {pid for (pid,) in stack.query(f"SELECT pid {others}")}
    assert not alive & {pid for pid, _ in told}

    # Alone, so that it meets one broken connection after the other.
    assert stack.get(PATHS[4]).status_code == 200
    with at_the_same_time(16) as crowd:
        answers = list(crowd.map(lambda _: stack.get(PATHS[4]).status_code, range(16)))
    assert answers == [200] * 16
    works(stack, "attendee5")


def is_unavailable(answer: requests.Response) -> None:
    """503, when to try again, and for whom it is: JSON for programs, a page for people."""
    assert answer.status_code == 503, (answer.url, answer.status_code, answer.text[:200])
    assert int(answer.headers["Retry-After"]) > 0
    if "/api/" in answer.url:
        assert answer.json()["errors"][0]["code"] == "busy"
    else:
        assert answer.headers["Content-Type"].startswith("text/html")
        assert "Try again" in answer.text


def logged_in(stack: Stack) -> dict[str, str]:
    """The cookies of somebody who has logged in on admin's page."""
    with requests.Session() as browser:
        browser.trust_env = False
        url = f"{stack.processes.url}/admin/login/"
        browser.get(url, timeout=60)
        form = {
            "username": "admin",
            "password": "admin",
            "csrfmiddlewaretoken": browser.cookies["csrftoken"],
        }
        answer = browser.post(url, data=form, allow_redirects=False, timeout=60)
        assert answer.status_code == 302, answer.text
        return browser.cookies.get_dict()
