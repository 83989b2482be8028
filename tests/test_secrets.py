"""Nothing secret is in the log or on an error page, whatever goes wrong."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from django.db import DatabaseError, connection
from django.db.utils import ConnectionHandler
from django.test import Client
from django.utils import timezone

from purchases.activity import log_failure
from purchases.models import WebhookEndpoint
from purchases.subscribers import deliveries, endpoints, publishing
from purchases.tasks import send_emails
from tests.conftest import buy, sign
from tests.factories import OfferFactory, OrganizationFactory, PurchaseFactory, UserFactory
from tests.refused_rows import SECRETS, refuse_row
from tests.webhook_receiver import go_on_for_ever, receiving
from tests.written_log import written_log

pytestmark = pytest.mark.django_db(transaction=True)

PASSWORD = "recognizable-password"
DATABASE_PASSWORD = "recognizable-database-password"
STRIPE_KEY = "sk_test_recognizable"
WEBHOOK_SECRET = "whsec_recognizable"


@pytest.fixture(params=["json", "console"])
def log(request: Any) -> Iterator[Callable[[], str]]:
    """The log, in each of the two ways to write it."""
    with written_log(request.param) as said:
        yield said


def unreachable_database(*args: Any) -> None:
    """What a query runs into when PostgreSQL is away, with the password in hand."""
    options = connection.settings_dict["OPTIONS"] | {"pool": False}
    away = {"HOST": "127.0.0.1", "PORT": "9", "PASSWORD": DATABASE_PASSWORD, "OPTIONS": options}
    ConnectionHandler({"default": connection.settings_dict | away})["default"].ensure_connection()


def bug(*args: Any) -> None:
    raise RuntimeError("a bug of ours")


def once(failure: Callable[..., Any]) -> Callable[..., Any]:
    """A wrapper of queries with ``failure`` in place of the first, whose own queries go through."""
    waiting = [failure]

    def wrapper(execute: Any, *query: Any) -> Any:
        return waiting.pop()() if waiting else execute(*query)

    return wrapper


def test_no_secret_is_logged_or_answered_when_things_go_wrong(
    sandbox: Any, client_of: Any, settings: Any, log: Callable[[], str]
) -> None:
    settings.STRIPE_SECRET_KEY = STRIPE_KEY
    settings.STRIPE_WEBHOOK_SECRETS = [WEBHOOK_SECRET]
    user = UserFactory(username="careful")
    user.set_password(PASSWORD)
    user.save()
    api = client_of()
    api.raise_request_exception = False
    browser = Client(raise_request_exception=False)
    login = {"username": "careful", "password": PASSWORD}
    tokens = api.post("/api/v1/auth/token/", login).json()
    browser.post("/login", login)
    cookies = [browser.cookies[name].value for name in ("sessionid",)]
    bearer = {"Authorization": f"Bearer {tokens['access']}"}
    free = OfferFactory(price=0)
    order = {"offer": str(free.pk), "quantity": 1}
    answers = []

    # A wrong name with the right password, and tokens that are of no use.
    answers += [
        api.post("/api/v1/auth/token/", login | {"username": "careles"}),
        browser.post("/login", login | {"username": "careles"}),
        browser.post("/admin/login/", login | {"username": "careles"}),
        api.get("/api/v1/purchases/", headers={"Authorization": bearer["Authorization"] + "x"}),
        api.get("/api/v1/purchases/", headers={"Authorization": f"Bearer {tokens['refresh']}"}),
        api.post("/api/v1/auth/token/refresh/", {"refresh": tokens["access"]}),
    ]
    # Stripe refuses, fails, and is sent a webhook's signature that is none.
    for status in (400, 401, 500):
        sandbox.faults(error_rate=1.0, error_status=status)
        answers.append(
            api.post(
                "/api/v1/purchases/",
                {"offer": str(OfferFactory().pk), "quantity": 1},
                headers=bearer,
            )
        )
    sandbox.faults()
    event = '{"id": "evt_1", "type": "checkout.session.completed"}'
    for signature in ("", "t=1,v1=00", sign(event, WEBHOOK_SECRET)[:-1] + "0"):
        answers.append(
            browser.post(
                "/api/v1/webhooks/stripe/",
                event,
                content_type="application/json",
                headers={"Stripe-Signature": signature},
            )
        )
    # The database is away, or we made a mistake: in the API, and on the pages.
    for failure in (unreachable_database, bug):
        with connection.execute_wrapper(failure):
            answers += [
                api.post("/api/v1/auth/token/", login),
                api.post("/api/v1/purchases/", order, headers=bearer),
                api.post("/api/v1/auth/token/refresh/", {"refresh": tokens["refresh"]}),
                browser.post("/login", login),
                browser.post("/admin/login/", login),
                browser.get(f"/purchases?token={tokens['access']}"),
            ]

    assert {answer.status_code for answer in answers} >= {400, 401, 500, 503}
    said = log()
    assert "a bug of ours" in said
    assert "Traceback" in said
    shown = "".join(answer.content.decode() for answer in answers)
    assert "a bug of ours" not in shown
    assert "Traceback" not in shown
    for secret in (
        PASSWORD, DATABASE_PASSWORD, STRIPE_KEY, WEBHOOK_SECRET, tokens["access"],
        tokens["refresh"], settings.SECRET_KEY, user.password, *cookies,
    ):  # fmt: skip
        assert secret not in said
        assert secret not in shown


def test_purchase_that_fails_at_stripe_is_logged_without_the_key(
    sandbox: Any, client_of: Any, settings: Any, log: Callable[[], str]
) -> None:
    settings.STRIPE_SECRET_KEY = STRIPE_KEY
    settings.STRIPE_API_BASE = "http://127.0.0.1:9"
    assert buy(client_of(UserFactory()), OfferFactory()).status_code == 503
    assert "purchase failed" in log()
    assert STRIPE_KEY not in log()


def test_delivery_that_fails_is_logged_without_the_secret_or_the_addresss_key(
    log: Callable[[], str],
) -> None:
    endpoint = WebhookEndpoint.objects.create(
        organization=OrganizationFactory(),
        url="http://127.0.0.1:9/hook/recognizable?key=recognizable",
    )
    endpoints.rotate_secret(endpoint.pk, now=timezone.now())
    publishing.ping(endpoint.pk, now=timezone.now())
    deliveries.send_due(now=timezone.now())
    with connection.execute_wrapper(bug), pytest.raises(RuntimeError):
        deliveries.send_due(now=timezone.now())
    with receiving() as server:
        server.behaviours = [go_on_for_ever(b"HTTP/1.1 200 OK\r\nno header\r\n\r\n", b"x")]
        url = f"{server.url}/recognizable"
        strange = WebhookEndpoint.objects.create(organization=OrganizationFactory(), url=url)
        publishing.ping(strange.pk, now=timezone.now())
        assert deliveries.send_due(now=timezone.now()) == 1
    endpoint.refresh_from_db()
    tried = endpoint.deliveries.get()
    for said in (log(), tried.error):
        assert "refused" in said
        for secret in (endpoint.secret, endpoint.previous_secret, "recognizable"):
            assert secret not in said


def test_row_that_the_database_refuses_is_logged_nowhere(
    client_of: Any, log: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    purchase = PurchaseFactory()
    try:
        refuse_row()
    except DatabaseError as error:
        log_failure("deliver", purchase, error)
        # As django-structlog tells of a task, in a worker.
        structlog.get_logger("tasks").exception("task_failed", error=str(error), exception=error)
    monkeypatch.setattr(send_emails, "run", refuse_row)
    assert send_emails.apply().failed()
    client = client_of(UserFactory())
    client.raise_request_exception = False
    with connection.execute_wrapper(once(refuse_row)):
        assert client.get("/api/v1/purchases/").status_code == 500
    said = log()
    assert said.count("IntegrityError: null value in column") >= 4
    assert "raised unexpected: IntegrityError('null value in column" in said
    assert [secret for secret in SECRETS if secret in said] == []


# -- Error pages ----------------------------------------------------------------------------------


@pytest.fixture
def browser() -> Client:
    client = Client(raise_request_exception=False, enforce_csrf_checks=True)
    client.force_login(UserFactory(is_staff=True))
    return client


def test_error_pages_are_plain_and_say_what_to_do(browser: Client) -> None:
    with connection.execute_wrapper(bug):
        broken = browser.get("/purchases")
    answers = [
        (broken, 500, "our mistake"),
        (browser.get("/nothing"), 404, "log in"),
        (browser.get("/admin/offers/offer/"), 403, "no right"),
        (browser.post("/logout"), 403, "load the page again"),
        (browser.get("/", headers={"Host": "evil.example"}), 400, "Nothing was done"),
    ]
    for answer, status, said in answers:
        text = answer.content.decode()
        assert answer.status_code == status
        assert said in text
        assert "<h1>" in text
        assert "Content-Security-Policy" in answer.headers
        for detail in ("Traceback", "DEBUG", "Django", "evil.example", "OFFERS"):
            assert detail not in text


def test_mistake_of_ours_is_answered_in_json_under_api(client_of: Any) -> None:
    client = client_of(UserFactory())
    client.raise_request_exception = False
    with connection.execute_wrapper(bug):
        answer = client.get("/api/v1/events/")
    assert answer.status_code == 500
    assert answer.json()["errors"][0]["code"] == "error"
    assert "bug" not in answer.content.decode()
