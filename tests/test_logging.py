"""What the log says of a purchase, and what it never says."""

import io
import json
import logging
import logging.config
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import structlog
from celery.utils.log import LoggingProxy
from django.conf import settings as django_settings

from offers_project.logging import configure
from purchases.models import Purchase
from tests.conftest import WEBHOOK_SECRET, buy, sign
from tests.factories import OfferFactory, UserFactory
from tests.written_log import written_log

pytestmark = pytest.mark.django_db(transaction=True)

KEYS = {"offer_id", "event_id", "user_id", "purchase_id", "quantity", "action"}


@pytest.fixture
def log() -> Iterator[Callable[[], str]]:
    """The log as production writes it: one JSON object a line."""
    with written_log() as said:
        yield said


def lines(log: Callable[[], str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log().splitlines()]


def test_line_that_is_no_json_for_most_is_written(log: Callable[[], str]) -> None:
    structlog.get_logger("ours").info("odd", half="\ud800", large=2**64)
    (odd,) = lines(log)
    assert (odd["half"], odd["large"], odd["logger"]) == ("\ud800", 2**64, "ours")


class Unreadable:
    def __repr__(self) -> str:
        raise RuntimeError("a bug")


@pytest.mark.parametrize("value", [{(1, 2): 3}, {b"a": 1}, Unreadable()], ids=lambda v: type(v))
def test_line_that_cannot_be_written_fails_nobody(value: Any, log: Callable[[], str]) -> None:
    structlog.get_logger("ours").info("done", value=value)
    (line,) = lines(log)
    assert line["event"] == "done"


@contextmanager
def configured(stream: io.TextIOWrapper | None, level: str = "INFO") -> Iterator[None]:
    """New loggers write to the stream, or to standard error, as in production."""
    root = logging.getLogger()
    before = root.handlers[:]
    try:
        logging.config.dictConfig(configure(level=level, style="json", stream=stream))
        yield
    finally:
        logging.config.dictConfig(
            configure(level=django_settings.LOG_LEVEL, style=django_settings.LOG_FORMAT)
        )
        root.handlers[:] = before


def test_log_that_nobody_takes_any_more_fails_nobody() -> None:
    stream = io.TextIOWrapper(io.BytesIO())
    with configured(stream):
        stream.close()
        structlog.get_logger("ours").info("to nobody")
        logging.getLogger("others").info("to nobody")


def test_lines_of_ours_and_of_others_are_never_torn() -> None:
    reading, writing = os.pipe()
    said: list[bytes] = []
    long = "x" * 12_000

    def read() -> None:
        with os.fdopen(reading, "rb") as pipe:
            said.extend(pipe)

    def log(write: Callable[[str], Any]) -> None:
        for _ in range(200):
            write(long)

    reader = threading.Thread(target=read)
    reader.start()
    # Unbuffered, as in the image: nobody puts lines in a row but we.
    with io.TextIOWrapper(io.FileIO(writing, "w")) as stream, configured(stream):
        writes = (structlog.get_logger("ours").info, logging.getLogger("others").info)
        threads = [threading.Thread(target=log, args=(write,)) for write in (*writes, *writes)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    reader.join()
    assert [json.loads(line)["event"] == long for line in said] == [True] * 800


def test_logger_that_is_first_used_in_a_worker_does_not_meet_celerys_standard_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(written))
    with configured(None), monkeypatch.context() as in_a_worker:
        in_a_worker.setattr(sys, "stderr", LoggingProxy(logging.getLogger("celery")))
        structlog.get_logger("first used now").warning("alive")
        logging.getLogger("celery").warning("too")
    said = [json.loads(line)["event"] for line in written.getvalue().splitlines()]
    assert said == ["alive", "too"]


@pytest.mark.parametrize("level", ["DEBUG", "WARN", "FATAL"])
def test_every_name_of_a_level_is_understood(level: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO())
    with configured(stream, level=level):
        structlog.get_logger("ours").critical("it burns")
    assert b"it burns" in stream.buffer.getvalue()  # type: ignore[attr-defined]  # a BytesIO


def test_each_step_of_a_purchase_is_one_line_with_the_same_keys(
    sandbox: Any, client_of: Any, log: Callable[[], str]
) -> None:
    offer = OfferFactory()
    user = UserFactory()
    purchase = buy(client_of(user), offer, 2).json()
    sandbox.act(purchase["checkout_session_id"], "pay")
    sandbox.deliver("checkout.session.completed")

    said = [line for line in lines(log) if line["event"] == "purchase"]

    assert [line["action"] for line in said] == ["hold", "open_checkout", "pay"]
    for line in said:
        assert set(line) >= KEYS
        assert line["purchase_id"] == purchase["id"]
        assert line["user_id"] == user.pk
        assert line["quantity"] == 2
    requested = {line.get("request_id") for line in said[:2]}
    assert len(requested) == 1
    assert requested != {None}


def test_failure_is_logged_with_its_traceback(
    sandbox: Any, client_of: Any, log: Callable[[], str]
) -> None:
    sandbox.faults(error_rate=1.0, error_status=500)
    buy(client_of(UserFactory()), OfferFactory())
    failed = [line for line in lines(log) if line["event"] == "purchase failed"]
    assert len(failed) == 1
    assert set(failed[0]) >= KEYS | {"error", "exception", "request_id"}
    assert "Traceback" in failed[0]["exception"]
    assert failed[0]["purchase_id"] == str(Purchase.objects.get().pk)


def test_no_key_no_token_and_no_webhook_body_is_ever_logged(
    sandbox: Any, client_of: Any, log: Callable[[], str], settings: Any
) -> None:
    user = UserFactory()
    client = client_of()
    answer = client.post(
        "/api/v1/auth/token/", {"username": user.username, "password": "secret"}
    ).json()
    buyer = client_of(user)
    purchase = buy(buyer, OfferFactory(title="A telling title")).json()
    sandbox.act(purchase["checkout_session_id"], "pay", email="buyer@example.com")
    event = json.dumps(sandbox.events("checkout.session.completed")[0])
    for signature in (sign(event), "forged"):
        client.post(
            "/api/v1/webhooks/stripe/",
            data=json.loads(event),
            headers={"Stripe-Signature": signature},
        )
    sandbox.deliver()
    sandbox.faults(error_rate=1.0, error_status=500)
    buy(buyer, OfferFactory())
    said = log()
    assert said
    for secret in (
        settings.SECRET_KEY,
        settings.STRIPE_SECRET_KEY,
        WEBHOOK_SECRET,
        answer["access"],
        answer["refresh"],
        buyer._credentials["HTTP_AUTHORIZATION"],
        "buyer@example.com",
        "payment_method_types",
    ):
        assert secret not in said
