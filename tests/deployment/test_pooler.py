"""The service behind a real PgBouncer in transaction mode, as docker-compose.yml has it."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import psycopg
import pytest

from tests.conftest import sign
from tests.deployment.shop import Shop
from tests.deployment.stack import HOST, Stack
from tests.local_processes import wait_for

pytestmark = [pytest.mark.timeout(240), pytest.mark.xdist_group("pooler")]

WITH_PAGES = True
# default_pool_size in docs/deploy/pgbouncer.ini.
SERVER_CONNECTIONS = 20


def pooler_url(stack: Stack, database: str = "offers") -> str:
    address = f"@127.0.0.1:{stack.ports['pgbouncer']}/{database}"
    return stack.postgres.url.partition("@")[0] + address


def test_free_purchase_is_paid_at_once(shop: Shop) -> None:
    offer, _ = shop.offer(total=5)
    (buyer,) = shop.buyers(1)
    bought = buyer.buy(offer, "one")
    assert (bought.status_code, bought.json()["status"]) == (201, "paid")
    again = buyer.buy(offer, "one")
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (200, "true")
    assert shop.counters(offer) == (0, 1)


def test_priced_purchase_is_paid_by_its_webhook_and_delivered(stack: Stack, shop: Shop) -> None:
    offer, _ = shop.offer(total=5, price="25.00")
    (buyer,) = shop.buyers(1)
    bought = buyer.buy(offer)
    assert bought.status_code == 201, bought.text
    stack.sandbox.control(f"sessions/{bought.json()['checkout_session_id']}/pay")
    for event in stack.sandbox.client().v1.events.list({"type": "checkout.session.completed"}).data:
        payload = json.dumps(event.to_dict(), default=str)
        signed = {"Stripe-Signature": sign(payload), "Content-Type": "application/json"}
        assert buyer.post("/api/v1/webhooks/stripe/", data=payload, headers=signed).ok
    assert buyer.status_of(bought.json()["id"]) == "paid"
    delivered = "SELECT 1 FROM fulfillment_fulfillment WHERE purchase_id = %s"
    wait_for(lambda: shop.query(delivered, bought.json()["id"]), "delivered", timeout=60)
    assert shop.counters(offer) == (0, 1)


def test_worker_ends_holds_that_nobody_pays(shop: Shop) -> None:
    offer, _ = shop.offer(total=5, price="25.00")
    (buyer,) = shop.buyers(1)
    held = buyer.buy(offer)
    assert held.status_code == 201, held.text

    def is_released() -> bool:
        shop.run("from purchases.tasks import end_overdue_holds; end_overdue_holds.delay()")
        return buyer.status_of(held.json()["id"]) == "released"

    wait_for(is_released, "released", timeout=60)
    assert shop.counters(offer) == (0, 0)


def test_rush_sells_each_unit_once(shop: Shop) -> None:
    offer, _ = shop.offer(total=15)
    buyers = shop.buyers(60)
    with ThreadPoolExecutor(max_workers=len(buyers)) as pool:
        codes = list(pool.map(lambda buyer: buyer.buy(offer).status_code, buyers))
    assert sorted(codes) == [201] * 15 + [409] * 45
    assert shop.counters(offer) == (0, 15)


def test_lock_that_is_not_had_in_time_is_busy(stack: Stack, shop: Shop) -> None:
    offer, _ = shop.offer(total=5)
    (buyer,) = shop.buyers(1)
    with psycopg.connect(stack.postgres.url) as holder:
        holder.execute("SELECT 1 FROM offers_offer WHERE id = %s FOR UPDATE", [offer])
        answer = buyer.buy(offer, "held up")
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (503, "busy")
    assert "Retry-After" in answer.headers
    assert buyer.buy(offer, "held up").status_code == 201
    assert shop.counters(offer) == (0, 1)


READ = """
from django.db import connection
buyer, offer = User.objects.create(username="reader"), factories.OfferFactory(inventory_total=120)
factories.PurchaseFactory.create_batch(120, user=buyer, offer=offer)
for _ in range(3):
    found = [purchase.pk for purchase in Purchase.objects.order_by("pk").iterator(chunk_size=50)]
    assert found == sorted(Purchase.objects.values_list("pk", flat=True)), len(found)
for _ in range(20):
    with connection.cursor() as cursor:
        # Asked for, and not done: the next one may be somebody else's connection.
        connection.connection.execute("SELECT 1 + 1", prepare=True)
        cursor.execute("SELECT count(*) FROM pg_prepared_statements")
        assert cursor.fetchone() == (0,)
result = len(found)
"""


def test_iterators_and_prepared_statements_keep_nothing_in_a_session(shop: Shop) -> None:
    assert shop.run(READ) >= 120


ADMIN = """
from django.test import Client
user = User.objects.create(username="root", is_staff=True, is_superuser=True)
client = Client()
client.force_login(user, backend="offers_project.login.ByMembership")
result = client.cookies["sessionid"].value
"""


def test_back_office_lists_and_exports(stack: Stack, shop: Shop) -> None:
    offer, _ = shop.offer(total=5)
    (buyer,) = shop.buyers(1)
    assert buyer.buy(offer).status_code == 201
    staff = stack.client()
    staff.headers["Cookie"] = f"sessionid={shop.run(ADMIN)}"
    for page in ("offers/offer/", "purchases/purchase/", "purchases/stripeevent/"):
        listed = staff.get(f"{stack.url}/admin/{page}", allow_redirects=False)
        assert listed.status_code == 200, page
    export = f"{stack.url}/admin/purchases/purchase/export/"
    asked = staff.get(export)
    # As a browser would by HTTPS: its cookies are for that alone.
    staff.headers["Cookie"] += f"; csrftoken={asked.cookies['csrftoken']}"
    staff.headers["Referer"] = f"https://{HOST}/"
    (token,) = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', asked.text)[:1]
    exported = staff.post(export, data={"file": "csv", "csrfmiddlewaretoken": token})
    assert exported.status_code == 200
    ((how_many,),) = shop.query("SELECT count(*) FROM purchases_purchase")
    assert len(exported.text.splitlines()) == how_many + 1


def test_nothing_of_one_client_is_left_to_another(stack: Stack, shop: Shop) -> None:
    """Last of those with traffic: every connection of the pooler's has served many by now."""
    offer, _ = shop.offer()
    buyers = shop.buyers(30)
    with ThreadPoolExecutor(max_workers=len(buyers)) as pool:
        assert set(pool.map(lambda buyer: buyer.buy(offer).status_code, buyers)) == {201}
    left = """
        SELECT pg_backend_pid(), current_setting('lock_timeout'),
               current_setting('statement_timeout'), current_setting('search_path'),
               (SELECT count(*) FROM pg_prepared_statements),
               (SELECT count(*) FROM pg_cursors WHERE name <> ''),
               (SELECT count(*) FROM pg_locks
                WHERE locktype = 'advisory' AND pid = pg_backend_pid())
    """
    stack.children["worker"].stop(timeout=60)
    with ExitStack() as opened:
        seen = []
        for _ in range(SERVER_CONNECTIONS - 4):
            # Each transaction stays open, so each is another connection.
            client = opened.enter_context(psycopg.connect(pooler_url(stack)))
            seen.append(client.execute(left, prepare=False).fetchone())
    assert len({row[0] for row in seen if row}) == SERVER_CONNECTIONS - 4
    assert {row[1:] for row in seen if row} == {("1500ms", "15s", '"$user", public', 0, 0, 0)}
    stack.run("worker")


def test_restart_of_postgresql_is_answered_and_over_when_it_is_back(
    stack: Stack, shop: Shop
) -> None:
    offer, _ = shop.offer()
    (buyer,) = shop.buyers(1)
    stack.postgres.stop()
    answers = [buyer.buy(offer, f"away {n}") for n in range(3)]
    assert [answer.status_code for answer in answers] == [503] * 3
    assert all("Retry-After" in answer.headers for answer in answers)
    stack.postgres.start()
    wait_for(lambda: buyer.buy(offer, "back").ok, "purchases again", timeout=30)
    assert stack.check("pgbouncer") == 0
    assert shop.counters(offer) == (0, 1)


def test_timeouts_that_are_not_stored_are_an_alert(stack: Stack) -> None:
    env = stack.environment("web") | {"LOCK_TIMEOUT_MS": "1501"}
    code = "from django.db import connection; connection.ensure_connection()"
    command = ["python", "manage.py", "shell", "--no-imports", "-c", code]
    assert "timeouts_not_stored" in stack.complete(command, env).stderr
    assert "timeouts_not_stored" not in stack.log("web-127.0.0.2") + stack.log("worker")


def test_clients_wait_for_a_connection_and_no_longer_than_for_ours(
    stack: Stack, shop: Shop
) -> None:
    offer, _ = shop.offer()
    (buyer,) = shop.buyers(1)
    with ExitStack() as opened:
        for _ in range(SERVER_CONNECTIONS):
            client = opened.enter_context(psycopg.connect(pooler_url(stack), connect_timeout=5))
            client.execute("SELECT 1", prepare=False)
        answer = buyer.buy(offer, "no room")
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (503, "busy")
    wait_for(lambda: buyer.buy(offer, "no room").ok, "room again", timeout=30)
