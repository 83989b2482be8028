"""Events reach the organizations' servers: signed, once, again after a failure, each by itself."""

import json
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone
from standardwebhooks import Webhook, WebhookVerificationError

from offers.models import Organization
from offers_project.local.environment import ROOT
from purchases import tasks
from purchases.errors import EndpointInactive, SecretJustRotated
from purchases.subscribers import deliveries, endpoints, publish, publishing, transport
from purchases.subscribers.models import WebhookDelivery, WebhookEndpoint
from tests.conftest import at_once
from tests.factories import OrganizationFactory
from tests.local_processes import wait_for
from tests.service_processes import own_database_url
from tests.webhook_receiver import Receiver, answer, go_on_for_ever, hang, receiving

pytestmark = pytest.mark.django_db(transaction=True)

SOON = timedelta(minutes=1)
ENDLESS = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n"


@pytest.fixture
def server() -> Iterator[Receiver]:
    with receiving() as server:
        yield server


@pytest.fixture
def organization() -> Organization:
    return OrganizationFactory()


@pytest.fixture
def endpoint(server: Receiver, organization: Organization) -> WebhookEndpoint:
    return WebhookEndpoint.objects.create(organization=organization, url=server.url)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "READ", 1.0)
    monkeypatch.setattr(transport, "TOTAL", 2.0)


def tell(
    organization: Organization, key: str = "k", type: str = "purchase.paid", **data: Any
) -> None:
    with transaction.atomic():
        publish(organization_id=organization.pk, type=type, key=key, data=data, now=timezone.now())


def send() -> int:
    return deliveries.send_due(now=timezone.now())


def pass_time(how_much: timedelta = SOON) -> Any:
    """As if all that was written down had been so much earlier."""
    for model, names in (
        (WebhookEndpoint, ("due_at", "failing_since", "previous_secret_until")),
        (WebhookDelivery, ("due_at", "created_at", "delivered_at")),
    ):
        model._default_manager.update(**{name: F(name) - how_much for name in names})


def the_delivery(**which: Any) -> WebhookDelivery:
    return WebhookDelivery.objects.get(**which)


# -- Publishing -----------------------------------------------------------------------------------


def test_event_arrives_signed_by_the_convention(
    server: Receiver, organization: Organization, endpoint: WebhookEndpoint
) -> None:
    which = uuid.uuid4()
    before = timezone.now()
    tell(organization, purchase_id=which, paid_at=before, name="Zoë – 2 × ☕", amount="78.00")

    assert tasks.deliver_webhooks() == 1

    (request,) = server.received
    got = Webhook(endpoint.secret).verify(request.body, request.headers)
    assert list(got) == ["type", "timestamp", "data"]
    assert got["type"] == "purchase.paid"
    assert got["timestamp"].endswith("Z")
    assert got["data"]["purchase_id"] == str(which)
    assert got["data"]["name"] == "Zoë – 2 × ☕"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("Offers-Webhooks/")
    assert re.fullmatch(r"msg_[0-9a-f]{32}", request.headers["webhook-id"])
    with pytest.raises(WebhookVerificationError):
        Webhook(endpoint.secret).verify(request.body + b" ", request.headers)
    sent = the_delivery()
    assert (sent.state, sent.attempts, sent.response_status) == ("delivered", 1, 200)
    assert sent.delivered_at
    assert sent.delivered_at >= before
    assert sent.duration_ms is not None


def test_secret_is_long_and_of_the_conventions_form(endpoint: WebhookEndpoint) -> None:
    assert endpoint.secret.startswith("whsec_")
    assert 24 <= len(Webhook(endpoint.secret)._whsecret) <= 64
    assert endpoint.secret != WebhookEndpoint().secret


def test_occasion_is_told_of_once(
    server: Receiver, organization: Organization, endpoint: WebhookEndpoint
) -> None:
    for _ in range(3):
        tell(organization)
    assert send() == 1
    tell(organization)
    pass_time()
    assert send() == 0
    assert len(server.received) == 1


def test_occasion_published_by_several_at_once_is_told_of_once(
    server: Receiver, organization: Organization, endpoint: WebhookEndpoint
) -> None:
    assert at_once([lambda: tell(organization)] * 4) == [None] * 4
    send()
    assert len(server.received) == 1


def test_event_that_is_rolled_back_never_was(
    organization: Organization, endpoint: WebhookEndpoint
) -> None:
    with transaction.atomic():
        tell(organization)
        transaction.set_rollback(True)
    assert not WebhookDelivery.objects.exists()


def test_publishing_to_nobody_costs_one_query(
    organization: Organization, django_assert_num_queries: Any
) -> None:
    with transaction.atomic(), django_assert_num_queries(1):
        publish(
            organization_id=organization.pk,
            type="purchase.paid",
            key="k",
            data={},
            now=timezone.now(),
        )


def test_endpoint_gets_what_it_wants_of_its_own_organization(
    server: Receiver, organization: Organization
) -> None:
    def make(name: str, **fields: Any) -> None:
        fields.setdefault("organization", organization)
        WebhookEndpoint.objects.create(url=server.url, description=name, **fields)

    make("all")
    make("refunds", event_types=["purchase.refunded", "fulfillment.revoked"])
    make("off", is_active=False)
    make("foreign", organization=OrganizationFactory())
    tell(organization, "1", "purchase.paid")
    tell(organization, "2", "purchase.refunded")
    told = WebhookDelivery.objects.values_list("endpoint__description", "type")
    assert sorted(told) == [
        ("all", "purchase.paid"),
        ("all", "purchase.refunded"),
        ("refunds", "purchase.refunded"),
    ]


def test_unknown_event_is_a_mistake_of_ours(organization: Organization) -> None:
    with pytest.raises(ValueError, match="no event"):
        tell(organization, type="purchase.piad")


# -- Failures -------------------------------------------------------------------------------------


def test_failed_event_is_sent_again_later_with_the_same_id(
    server: Receiver, organization: Organization, endpoint: WebhookEndpoint
) -> None:
    server.behaviours = [answer(500, b"Oh no\0"), answer(404)]
    tell(organization)
    pauses = []
    for _ in range(2):
        asked = timezone.now()
        assert send() == 0
        failed = the_delivery()
        assert failed.state == "waiting"
        pauses.append((failed.due_at - asked).total_seconds())
        assert send() == 0, "it is not due yet"
        pass_time()
    assert send() == 1

    assert 11 < pauses[0] < 30
    assert 23 < pauses[1] < 50
    assert len(set(server.ids())) == 1
    assert len(server.received) == 3
    for request in server.received:
        Webhook(endpoint.secret).verify(request.body, request.headers)
    assert the_delivery().attempts == 3
    assert failed.error == "It answered 404."
    endpoint.refresh_from_db()
    assert endpoint.failing_since is None


def test_what_a_server_said_is_in_the_log(
    server: Receiver, organization: Organization, endpoint: WebhookEndpoint
) -> None:
    server.behaviours = [answer(500, b"Oh no\0 \xff" + b"x" * 5000)]
    tell(organization)
    send()
    failed = the_delivery()
    assert (failed.response_status, failed.error) == (500, "It answered 500.")
    assert failed.response_body.startswith("Oh no\ufffd \ufffdxxx")
    assert len(failed.response_body) == 1000
    endpoint.refresh_from_db()
    assert endpoint.failing_since


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (hang, "No answer within 1 seconds."),
        (go_on_for_ever(b"HTTP/1.1 200 OK\r\n", b"x", 0.05), "It took longer than 2 seconds"),
        (go_on_for_ever(b"", b"HTTP/1.1 100 Wait\r\n\r\n", 0.05), "It took longer than 2 seconds"),
        (go_on_for_ever(b"nonsense", b"\r\n"), "The connection was refused, or broke off."),
    ],
    ids=["silent", "drips headers", "continues", "no HTTP"],
)  # fmt: skip
@pytest.mark.usefixtures("impatient")
def test_server_that_does_not_answer_is_left_alone_for_a_while(
    server: Receiver,
    organization: Organization,
    endpoint: WebhookEndpoint,
    behaviour: Any,
    said: str,
) -> None:
    server.behaviours = [behaviour]
    for n in range(5):
        tell(organization, str(n))
    began = time.monotonic()
    assert send() == 0
    assert time.monotonic() - began < 10
    assert len(server.received) == 1, "the others wait with it"
    asked = the_delivery(attempts=1)
    assert asked.error.startswith(said)
    assert asked.response_status is None
    assert send() == 0
    assert len(server.received) == 1
    pass_time()
    assert send() == 5
    assert server.ids().count(asked.message_id) == 2


@pytest.mark.usefixtures("impatient")
def test_dead_endpoint_does_not_hold_up_the_others(
    server: Receiver, organization: Organization, endpoint: WebhookEndpoint
) -> None:
    with receiving() as dead:
        dead.behaviours = [hang] * 20
        WebhookEndpoint.objects.update(due_at=timezone.now())
        for _ in range(3):
            WebhookEndpoint.objects.create(
                organization=organization, url=dead.url, due_at=timezone.now() - SOON
            )
        for n in range(8):
            tell(organization, str(n))
        assert send() == 8
        assert len(dead.received) == 3, "once each"
    assert len(server.received) == 8


def test_endpoint_with_a_lot_waiting_takes_turns_with_the_others(
    server: Receiver, organization: Organization, endpoint: WebhookEndpoint
) -> None:
    for n in range(deliveries.TURN_EVENTS * 2):
        tell(organization, str(n))
    other = OrganizationFactory()
    WebhookEndpoint.objects.create(organization=other, url=f"{server.url}/other")
    tell(other)
    assert send() == deliveries.TURN_EVENTS * 2 + 1
    paths = [request.path for request in server.received]
    assert paths.index("/hook/other") == deliveries.TURN_EVENTS


def test_overloaded_server_gets_a_rest(
    server: Receiver, organization: Organization, endpoint: WebhookEndpoint
) -> None:
    server.behaviours = [answer(503)] * 2
    for n in range(3):
        tell(organization, str(n))
    for expected in (1, 2, 5):
        send()
        assert len(server.received) == expected
        pass_time()


def test_event_is_given_up_after_three_days(
    server: Receiver, organization: Organization, endpoint: WebhookEndpoint
) -> None:
    server.behaviours = [answer(500)] * 2
    tell(organization)
    send()
    assert the_delivery().state == "waiting"
    pass_time(deliveries.PATIENCE)
    send()
    assert the_delivery().state == "given_up"
    pass_time(timedelta(days=30))
    assert send() == 0
    assert len(server.received) == 2


def test_last_attempts_are_six_hours_apart(
    server: Receiver, organization: Organization, endpoint: WebhookEndpoint
) -> None:
    server.behaviours = [answer(500)]
    tell(organization)
    WebhookDelivery.objects.update(attempts=15)
    send()
    pause = the_delivery().due_at - timezone.now()
    assert timedelta(hours=4.7) < pause < timedelta(hours=7.3)


def test_server_that_is_gone_is_asked_no_more(
    server: Receiver, organization: Organization, endpoint: WebhookEndpoint, capsys: Any
) -> None:
    server.behaviours = [answer(410)]
    tell(organization, "1")
    tell(organization, "2")
    send()
    endpoint.refresh_from_db()
    assert not endpoint.is_active
    assert "410" in endpoint.disabled_reason
    assert the_delivery(key="1").state == "given_up"
    tell(organization, "3")
    pass_time()
    assert send() == 0
    assert len(server.received) == 1
    assert WebhookDelivery.objects.count() == 2
    with pytest.raises(EndpointInactive):
        deliveries.resend(the_delivery(key="1").pk, now=timezone.now())
    with pytest.raises(EndpointInactive):
        publishing.ping(endpoint.pk, now=timezone.now())


def test_endpoint_that_accepts_nothing_for_five_days_is_disabled_with_an_alert(
    server: Receiver, organization: Organization, endpoint: WebhookEndpoint, caplog: Any
) -> None:
    server.behaviours = [answer(500), answer(500), answer(500)]
    tell(organization)
    send()
    pass_time(deliveries.HOPELESS - SOON)
    WebhookDelivery.objects.update(created_at=timezone.now())
    send()
    endpoint.refresh_from_db()
    assert endpoint.is_active
    pass_time()
    send()
    endpoint.refresh_from_db()
    assert not endpoint.is_active
    assert "5 days" in endpoint.disabled_reason
    assert "webhook_endpoint_disabled" in caplog.text
    assert the_delivery().state == "waiting"

    WebhookEndpoint.objects.update(is_active=True)
    endpoints.begin_anew(endpoint.pk, now=timezone.now())
    pass_time(timedelta(minutes=5))
    assert send() == 1
    endpoint.refresh_from_db()
    assert (endpoint.failing_since, endpoint.disabled_reason) == (None, "")


def test_mistake_of_ours_with_one_event_stops_no_other(
    server: Receiver, organization: Organization, endpoint: WebhookEndpoint
) -> None:
    WebhookEndpoint.objects.create(
        organization=organization,
        url=server.url,
        secret="whsec_",
        due_at=timezone.now() - SOON,
    )
    tell(organization)
    assert send() == 1
    assert "EmptyWebhookSecretError" in the_delivery(state="waiting").error


# -- Crashes and several workers ------------------------------------------------------------------


def test_two_workers_send_each_event_once(
    server: Receiver, organization: Organization, endpoint: WebhookEndpoint
) -> None:
    others = [
        WebhookEndpoint.objects.create(organization=organization, url=server.url) for _ in range(3)
    ]
    for n in range(10):
        tell(organization, str(n))
    counts = at_once([send, send])
    assert sum(counts) + send() == 10 * (1 + len(others))
    assert len(server.ids()) == len(set(server.ids())) == 40


def test_worker_killed_before_the_answer_leaves_the_event_to_the_next(
    server: Receiver, organization: Organization, endpoint: WebhookEndpoint
) -> None:
    server.behaviours = [hang]
    tell(organization)
    code = (
        "import django; django.setup(); from django.utils import timezone; "
        "from purchases.subscribers import deliveries; deliveries.send_due(now=timezone.now())"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "offers_project.settings",
            "DATABASE_URL": own_database_url(),
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: server.received, "the request of the worker", timeout=30)
    finally:
        worker.kill()
        worker.wait()
    assert the_delivery().state == "waiting"
    pass_time()
    assert send() == 0, "it is the dead worker's until its lease is over"
    pass_time(deliveries.LEASE)
    assert send() == 1
    assert len(server.received) == 2
    assert len(set(server.ids())) == 1


def test_late_answer_does_not_overrule_who_took_over(
    server: Receiver, organization: Organization, endpoint: WebhookEndpoint
) -> None:
    """The first worker was slow beyond its lease, and failed; the second one has delivered."""

    def meanwhile(handler: Any) -> None:
        assert at_once([lambda: pass_time(deliveries.LEASE) or send()]) == [1]
        answer(500)(handler)

    server.behaviours = [meanwhile]
    tell(organization)
    assert send() == 0
    assert the_delivery().state == "delivered"
    assert len(server.received) == 2


def test_no_database_connection_or_transaction_is_open_while_a_server_thinks(
    server: Receiver, organization: Organization, endpoint: WebhookEndpoint, monkeypatch: Any
) -> None:
    seen = []

    def watching(*args: Any) -> transport.Answer:
        seen.append((connection.connection, connection.in_atomic_block))
        return transport.post(*args)

    monkeypatch.setattr(deliveries, "post", watching)
    tell(organization)
    assert send() == 1
    assert seen == [(None, False)]


def test_webhooks_leave_threads_of_the_worker_free(
    server: Receiver, organization: Organization, endpoint: WebhookEndpoint
) -> None:
    tell(organization)
    with deliveries._sweeps, deliveries._sweeps:
        assert send() == 0
    assert send() == 1


# -- Hostile answers ------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirect_is_not_followed(
    server: Receiver, organization: Organization, endpoint: WebhookEndpoint, status: int
) -> None:
    server.behaviours = [answer(status, Location=f"{server.url}/elsewhere")]
    tell(organization)
    assert send() == 0
    assert [request.path for request in server.received] == ["/hook"]
    assert "redirect" in the_delivery().error


@pytest.mark.parametrize(
    "head",
    [
        ENDLESS,
        ENDLESS.replace(b"200 OK", b"302 Found\r\nLocation: /elsewhere"),
        ENDLESS.replace(b"text/plain", b"text/plain\r\nContent-Encoding: gzip"),
        ENDLESS.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ],
    ids=["plain", "redirect", "packed", "chunked"],
)
def test_endless_answer_is_cut(
    server: Receiver, organization: Organization, endpoint: WebhookEndpoint, head: bytes
) -> None:
    piece = b"1000\r\n" + b"x" * 4096 + b"\r\n" if b"chunked" in head else b"x" * 4096
    server.behaviours = [go_on_for_ever(head, piece)]
    tell(organization)
    began = time.monotonic()
    assert send() == (0 if b"302" in head else 1)
    assert time.monotonic() - began < 10
    assert the_delivery().response_body == "x" * 1000
    assert len(server.received) == 1


@pytest.mark.usefixtures("impatient")
def test_answer_that_never_ends_was_an_answer(
    server: Receiver, organization: Organization, endpoint: WebhookEndpoint
) -> None:
    server.behaviours = [go_on_for_ever(ENDLESS, b"x", 0.05)]
    tell(organization)
    began = time.monotonic()
    assert send() == 1
    assert time.monotonic() - began < 10
    assert the_delivery().response_body.startswith("xxx")


# -- Secrets, tests, resends ----------------------------------------------------------------------


def test_replaced_secret_counts_for_a_day(
    server: Receiver, organization: Organization, endpoint: WebhookEndpoint
) -> None:
    old = endpoint.secret
    endpoints.rotate_secret(endpoint.pk, now=timezone.now())
    with pytest.raises(SecretJustRotated):
        endpoints.rotate_secret(endpoint.pk, now=timezone.now())
    endpoint.refresh_from_db()
    assert endpoint.secret != old
    tell(organization, "1")
    send()
    pass_time(endpoints.ROTATION)
    tell(organization, "2")
    send()

    first, second = server.received
    for secret in (old, endpoint.secret):
        Webhook(secret).verify(first.body, first.headers)
    assert len(first.headers["webhook-signature"].split(" ")) == 2
    Webhook(endpoint.secret).verify(second.body, second.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(old).verify(second.body, second.headers)
    endpoints.rotate_secret(endpoint.pk, now=timezone.now())


def test_test_event_goes_to_one_endpoint_whatever_it_chose(
    server: Receiver, organization: Organization, endpoint: WebhookEndpoint
) -> None:
    WebhookEndpoint.objects.create(organization=organization, url=server.url)
    WebhookEndpoint.objects.filter(pk=endpoint.pk).update(
        event_types=["booking.changed"], due_at=timezone.now() + SOON
    )
    for _ in range(2):
        publishing.ping(endpoint.pk, now=timezone.now())
    assert send() == 2
    assert {json.loads(request.body)["type"] for request in server.received} == {"webhook.test"}
    assert set(WebhookDelivery.objects.values_list("endpoint", flat=True)) == {endpoint.pk}


@pytest.mark.parametrize("state", ["delivered", "given_up", "waiting"])
def test_event_is_sent_again_on_demand_with_the_same_id(
    server: Receiver, organization: Organization, endpoint: WebhookEndpoint, state: str
) -> None:
    tell(organization)
    send()
    WebhookDelivery.objects.update(state=state, due_at=timezone.now() + timedelta(hours=6))
    WebhookEndpoint.objects.update(due_at=timezone.now() + SOON)
    deliveries.resend(the_delivery().pk, now=timezone.now())
    assert send() == 1
    assert len(server.received) == 2
    assert len(set(server.ids())) == 1
    sent = the_delivery()
    assert (sent.state, sent.attempts) == ("delivered", 2)


# -- The page for who receives them ---------------------------------------------------------------

PAGE = (ROOT / "docs" / "webhooks.md").read_text()


def test_page_shows_one_of_each_event() -> None:
    shown = [json.loads(block) for block in re.findall(r"```json\n(.*?)\n```", PAGE, re.DOTALL)]
    assert {event["type"] for event in shown} == {*publishing.TYPES, publishing.TEST}
    assert all(list(event) == ["type", "timestamp", "data"] for event in shown)


def test_code_on_the_page_verifies_what_we_send(
    server: Receiver, organization: Organization, endpoint: WebhookEndpoint
) -> None:
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)\n```", PAGE, re.DOTALL):
        exec(block, names)  # noqa: S102 - our own page
    endpoints.rotate_secret(endpoint.pk, now=timezone.now())
    old, new = WebhookEndpoint.objects.values_list("previous_secret", "secret").get()
    tell(organization)
    send()
    (request,) = server.received
    for receive in (names["receive"], names["receive_by_hand"]):
        for secret in (old, new):
            assert receive(request.body, request.headers, secret)["type"] == "purchase.paid"
        with pytest.raises((ValueError, WebhookVerificationError)):
            receive(request.body.replace(b"paid", b"piad"), request.headers, new)
