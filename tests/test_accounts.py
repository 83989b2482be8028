"""Logging in by address, limits of letters, and letters on their way whatever goes wrong."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from offers_project.accounts.models import AccountLetter
from offers_project.accounts.tasks import send_letters
from offers_project.schedule import SWEEPS
from purchases import mail
from tests.account_letters import (
    ADDRESS,
    GOOD,
    ask_for_reset,
    ask_to_register,
    choose,
    links,
    outbox,
    register,
    reset_link,
    send,
)
from tests.conftest import at_once
from tests.factories import UserFactory
from tests.ports import own_port
from tests.refused_rows import SECRETS, refuse_row
from tests.smtp_server import MailServer
from tests.written_log import written_log

pytestmark = pytest.mark.django_db(transaction=True)

STILL = time_machine.travel("2026-01-01T12:00:00Z", tick=False)
TOKEN = "/api/v1/auth/token/"


def log_in(name: str, password: str = "secret", path: str = "/login") -> int:  # noqa: S107
    return Client().post(path, {"username": name, "password": password}).status_code


# -- Logging in -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/login", "/admin/login/"])
@pytest.mark.parametrize("name", ["anna", ADDRESS, "ANNA@example.org", " anna@Example.org "])
def test_login_takes_the_address_for_the_name(path: str, name: str) -> None:
    UserFactory(username="anna", email="Anna@example.org")
    assert log_in(name, path=path) == 302
    assert log_in(name, "wrong", path=path) == 200


def test_api_logs_in_by_user_name_only() -> None:
    UserFactory(username="anna", email=ADDRESS)
    statuses = [
        Client()
        .post(TOKEN, {"username": name, "password": "secret"}, "application/json")
        .status_code
        for name in ("anna", ADDRESS)
    ]
    assert statuses == [200, 401]


def test_address_of_several_accounts_is_no_name() -> None:
    for name in ("anna", "anna2"):
        UserFactory(username=name, email=ADDRESS)
    assert log_in(ADDRESS) == 200
    assert log_in("anna2") == 302
    User.objects.filter(username="anna").update(is_active=False)
    assert log_in(ADDRESS) == 302


def test_user_name_comes_before_the_address_of_somebody_else() -> None:
    named = UserFactory(username=ADDRESS)
    UserFactory(username="other", email=ADDRESS)
    client = Client()
    client.post("/login", {"username": ADDRESS, "password": "secret"})
    assert client.session["_auth_user_id"] == str(named.pk)


def test_address_that_only_looks_alike_is_no_name() -> None:
    """The limit would count each of its spellings anew."""
    UserFactory(email="kiki@example.org")
    assert log_in("k\u0131k\u0131@example.org") == 200


def test_spellings_that_mean_one_account_share_its_tries(settings: Any) -> None:
    settings.LOGIN_RATE_LIMIT = "2/m"
    UserFactory(username="anna", email="anna@example.org", password="secret")
    with time_machine.travel("2026-01-01T12:00:00Z", tick=False):
        for unseen in ("", "\u00ad"):  # a soft hyphen, which a domain doesn't have
            assert log_in(f"anna@exam{unseen}ple.org", "wrong") == 200
        for unseen in ("\u200b", "\ufe0f"):
            assert log_in(f"anna@e{unseen}xample.org", "wrong") == 429


def test_login_costs_the_same_for_known_unknown_closed_and_doubtful() -> None:
    UserFactory(username="anna", email=ADDRESS)
    UserFactory(email="closed@example.org", is_active=False)
    for name in ("one", "two"):
        UserFactory(username=name, email="both@example.org")
    costs = set()
    for name in (ADDRESS, "nobody@example.org", "closed@example.org", "both@example.org"):
        with CaptureQueriesContext(connection) as queries:
            answer = Client().post("/login", {"username": name, "password": "wrong"})
        asked = [query["sql"].split("WHERE")[0] for query in queries if "auth_user" in query["sql"]]
        errors = answer.context["form"].errors.as_json()
        costs.add((answer.status_code, errors, *asked))
    assert len(costs) == 1


def test_what_is_wrong_is_said_once_and_tied_to_both_fields() -> None:
    answer = Client().post("/login", {"username": "anna", "password": "wrong"})
    page = answer.content.decode()
    assert page.count('role="alert"') == 1
    assert page.count('aria-describedby="form-error"') == 2
    assert page.count("autofocus") == 1
    assert 'autocomplete="username"' in page
    assert 'autocomplete="current-password"' in page
    assert "/register" in page
    assert "/register" not in Client().get("/admin/login/").content.decode()


# -- Limits ---------------------------------------------------------------------------------------


def test_letters_to_one_mailbox_are_limited_whatever_they_are_and_however_it_is_written() -> None:
    spellings = (ADDRESS, "ANNA@example.org", " anna@example.org", "anna+a@example.org")
    with STILL:
        for number in range(5):
            ask = ask_to_register if number % 2 else ask_for_reset
            assert ask(Client(), spellings[number % 4]).status_code == 302
        for ask in (ask_to_register, ask_for_reset):
            answer = ask(Client(), ADDRESS)
            assert answer.status_code == 429
            assert 1 <= int(answer.headers["Retry-After"]) <= 3600
            assert "Too many attempts: please wait" in answer.content.decode()
        assert ask_to_register(Client(), "other@example.org").status_code == 302
    assert AccountLetter.objects.count() == 6


def test_letters_from_one_address_are_limited(settings: Any) -> None:
    settings.LETTER_RATE_LIMIT_IP = "2/h"
    with STILL:
        asked = [ask_to_register(Client(), f"a{n}@example.org").status_code for n in range(3)]
    assert asked == [302, 302, 429]


def test_form_that_asks_for_nothing_is_not_counted(settings: Any) -> None:
    settings.LETTER_RATE_LIMIT = settings.LETTER_RATE_LIMIT_IP = "1/h"
    with STILL:
        for _ in range(3):
            assert ask_to_register(Client(), "anna").status_code == 200
        assert ask_to_register(Client()).status_code == 302


# -- The mail server ------------------------------------------------------------------------------


@pytest.fixture
def server(settings: Any) -> Iterator[MailServer]:
    server = MailServer()
    server.start()
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", server.port
    yield server
    server.stop()


def text_of(letter: Any) -> str:
    body = letter.get_body(("plain",))
    assert body is not None
    return str(body.get_content())


def test_letter_waits_for_a_mail_server_that_is_away(settings: Any) -> None:
    server = MailServer()
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", server.port
    client = Client()
    assert ask_to_register(client).status_code == 302
    assert AccountLetter.objects.get().attempts == 0  # the page left it to the worker
    assert send() == 0
    letter = AccountLetter.objects.get()
    assert (letter.attempts, letter.sent_at) == (1, None)
    assert "ConnectionRefusedError" in letter.error
    assert send() == 0  # its time hasn't come yet
    server.start()
    try:
        assert send(later=timedelta(minutes=1)) == 1
    finally:
        server.stop()
    link = links(text_of(server.letters[0]))[0]
    assert choose(client, link).status_code == 302


def test_neither_page_nor_letter_is_lost_to_a_mail_server_that_hangs(
    server: MailServer, settings: Any
) -> None:
    hangs = threading.Event()
    hangs.set()

    async def hang() -> None:
        while hangs.is_set():
            await asyncio.sleep(0.05)

    patience, settings.EMAIL_TIMEOUT = settings.EMAIL_TIMEOUT, 0.5
    server.before = hang
    assert ask_to_register(Client()).status_code == 302
    assert server.connections == 0  # the page left it to the worker
    assert send() == 0
    assert AccountLetter.objects.get().sent_at is None
    hangs.clear()
    settings.EMAIL_TIMEOUT = patience
    assert send(later=timedelta(minutes=1)) == 1


def test_two_workers_send_one_letter(server: MailServer) -> None:
    async def slow() -> None:
        await asyncio.sleep(0.3)

    server.before = slow
    ask_to_register(Client())
    at_once([send] * 3)
    assert len(server.letters) == 1
    headers = server.letters[0]
    assert headers["Auto-Submitted"] == "auto-generated"


def test_refused_address_is_given_up_and_holds_up_nobody(server: MailServer) -> None:
    server.at_rcpt = {ADDRESS: "550 No such user"}
    ask_to_register(Client())
    ask_to_register(Client(), "bea@example.org")
    assert send() == 1
    assert server.recipients == ["bea@example.org"]
    assert AccountLetter.objects.get().address == "bea@example.org"


def test_letter_that_nobody_waits_for_any_more_is_given_up(settings: Any) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", own_port()
    ask_to_register(Client())
    send(later=timedelta(hours=23))
    assert AccountLetter.objects.exists()
    send(later=timedelta(hours=25))
    assert not AccountLetter.objects.exists()


def test_letter_that_cannot_be_written_is_put_off(monkeypatch: Any) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("a bug of ours")

    ask_to_register(Client())
    with monkeypatch.context() as patch:
        patch.setattr(mail, "compose", broken)
        assert send() == 0
    assert "a bug of ours" in AccountLetter.objects.get().error
    assert send(later=timedelta(minutes=1)) == 1


def test_letter_tells_nothing_of_a_row_that_was_refused(monkeypatch: Any) -> None:
    ask_to_register(Client())
    monkeypatch.setattr(mail, "compose", refuse_row)
    with written_log() as said:
        assert send() == 0
        logged = said()
    told = AccountLetter.objects.get().error
    assert told.startswith("IntegrityError: null value in column")
    assert [line["error"] for line in map(json.loads, logged.splitlines())] == [told]
    assert [secret for secret in SECRETS if secret in told + logged] == []


def test_sweep_finds_letters_whose_nudge_was_lost() -> None:
    ask_to_register(Client())
    assert "accounts.send_letters" in {entry["task"] for entry in SWEEPS.values()}
    assert send_letters() == 1
    assert len(outbox()) == 1


# -- What is kept, and what is logged -------------------------------------------------------------


@pytest.fixture
def log() -> Iterator[Callable[[], str]]:
    with written_log() as said:
        yield said


def test_no_address_name_token_or_password_is_logged(
    log: Callable[[], str], server: MailServer
) -> None:
    ask_to_register(Client(), next="/events/secret-event/offers")
    server.at_data = {ADDRESS: f"451 {ADDRESS} is greylisted"}
    send()
    server.at_data = {}
    send(later=timedelta(minutes=5))
    link = links(text_of(server.letters[-1]))[0]
    choose(Client(), link)
    ask_for_reset(Client())
    send()
    reset = links(text_of(server.letters[-1]))[0]
    choose(Client(), reset, "another long password")
    lines = [json.loads(line) for line in log().splitlines()]
    # Without what the mail server of the test says.
    said = "\n".join(map(str, (line for line in lines if line["logger"] != "mail.log")))
    assert "letter failed" in said
    assert "/register/link/…" in said
    assert "/password/reset/" in said
    for secret in (
        "anna", "Wolf", link.rsplit("/", 1)[1], reset.rsplit("/", 1)[1], GOOD, "secret-event",
    ):  # fmt: skip
        assert secret not in said


def test_no_row_has_what_opens_an_account() -> None:
    client = Client()
    register(client, "bea@example.org")
    UserFactory(email=ADDRESS)
    ask_to_register(Client(), "new@example.org")
    ask_for_reset(Client())
    send()
    kept = str(list(AccountLetter.objects.values()))
    for letter in outbox():
        for link in links(letter.body):
            assert link.rsplit("/", 1)[1] not in kept
    assert [letter.address for letter in AccountLetter.objects.all()] == ["new@example.org"]
    assert reset_link(Client()) not in kept
