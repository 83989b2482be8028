"""A forgotten password, and a changed one: what the letter is good for, and what ends."""

from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from offers_project.accounts.models import AccountLetter
from tests.account_letters import (
    ADDRESS,
    GOOD,
    ask_for_reset,
    choose,
    links,
    outbox,
    reset_link,
    send,
)
from tests.factories import UserFactory

pytestmark = pytest.mark.django_db(transaction=True)

TOKEN = "/api/v1/auth/token/"


def log_in(name: str, password: str) -> int:
    return Client().post("/login", {"username": name, "password": password}).status_code


def test_new_password_is_set_and_leads_to_where_they_wanted_to_be() -> None:
    user = UserFactory(username="anna", email="Anna@Example.org")
    client = Client()
    answer = choose(client, reset_link(client, next="/events/conf/offers"))
    assert answer.headers["Location"] == "/events/conf/offers"
    assert client.get("/purchases").status_code == 200
    user.refresh_from_db()
    assert user.check_password(GOOD)
    assert (log_in("anna", "secret"), log_in("anna", GOOD)) == (200, 302)
    assert not AccountLetter.objects.exists()


def test_without_next_it_leads_to_the_purchases() -> None:
    UserFactory(email=ADDRESS)
    client = Client()
    assert choose(client, reset_link(client)).headers["Location"] == "/purchases"
    foreign = choose(client, reset_link(client, next="//evil.example"))
    assert foreign.headers["Location"] == "/purchases"


def test_next_added_to_a_link_leads_to_no_other_site() -> None:
    UserFactory(email=ADDRESS)
    client = Client()
    link = reset_link(client) + "?next=https://evil.example/"
    assert choose(client, link).headers["Location"] == "/purchases"


def test_reset_ends_all_sessions_and_tokens() -> None:
    user = UserFactory(username="anna", email=ADDRESS)
    other = Client()
    other.force_login(user)
    tokens = (
        Client().post(TOKEN, {"username": "anna", "password": "secret"}, "application/json").json()
    )
    bearer = {"Authorization": f"Bearer {tokens['access']}"}
    assert other.get("/purchases").status_code == 200
    assert Client().get("/api/v1/purchases/", headers=bearer).status_code == 200

    choose(Client(), reset_link(Client()))

    assert other.get("/purchases").status_code == 302
    assert Client().get("/api/v1/purchases/", headers=bearer).status_code == 401
    refresh = {"refresh": tokens["refresh"]}
    assert Client().post(f"{TOKEN}refresh/", refresh, "application/json").status_code == 401


# -- Which accounts -------------------------------------------------------------------------------


def test_answer_is_the_same_whoever_has_the_address() -> None:
    UserFactory(email="known@example.org")
    UserFactory(email="closed@example.org", is_active=False)
    shown = set()
    for who in ("known", "closed", "new"):
        client = Client()
        with CaptureQueriesContext(connection) as queries:
            answer = ask_for_reset(client, f"{who}@example.org")
        page = client.get(answer.headers["Location"])
        said = "on its way" in page.content.decode()
        shown.add((answer.status_code, answer.headers["Location"], len(queries), said))
    assert len(shown) == 1


def test_address_without_an_account_gets_no_letter() -> None:
    ask_for_reset(Client())
    assert send() == 0
    assert outbox() == []
    assert not AccountLetter.objects.exists()


def test_closed_account_is_told_so_and_gets_no_link() -> None:
    UserFactory(email=ADDRESS, is_active=False)
    ask_for_reset(Client())
    send()
    assert "closed" in outbox()[-1].body
    assert links(outbox()[-1].body) == []


def test_password_that_was_taken_away_is_not_given_back_by_letter() -> None:
    user = UserFactory(email=ADDRESS)
    user.set_unusable_password()
    user.save()
    ask_for_reset(Client())
    send()
    assert "no password that could be changed" in outbox()[-1].body
    assert links(outbox()[-1].body) == []


def test_several_accounts_of_one_address_are_told_apart_in_the_letter() -> None:
    for name in ("anna", "anna2"):
        UserFactory(username=name, email=ADDRESS)
    UserFactory(username="gone", email=ADDRESS, is_active=False)
    ask_for_reset(Client())
    assert send() == 1
    text = outbox()[-1].body
    assert text.index("anna:") < text.index("anna2:")
    first, second = links(text)
    choose(Client(), second)
    assert (log_in("anna2", GOOD), log_in("anna", GOOD)) == (302, 200)
    choose(Client(), first)
    assert log_in("anna", GOOD) == 302


def test_account_whose_address_only_looks_like_it_gets_no_letter() -> None:
    UserFactory(email="ann\u0131@example.org")
    UserFactory(email="\u212aate@example.org")
    ask_for_reset(Client(), "anni@example.org")
    ask_for_reset(Client(), "kate@example.org")
    assert send() == 0


# -- Links that don't work ------------------------------------------------------------------------


def test_link_works_once() -> None:
    user = UserFactory(email=ADDRESS)
    link = reset_link(Client())
    choose(Client(), link)
    answer = choose(Client(), link, "another long password")
    assert answer.status_code == 404
    assert "Ask for a new e-mail" in answer.content.decode()
    user.refresh_from_db()
    assert user.check_password(GOOD)


def test_link_ends_after_a_day_and_with_the_account() -> None:
    user = UserFactory(email=ADDRESS)
    with time_machine.travel("2026-01-01T12:00:00Z", tick=False) as clock:
        link = reset_link(Client())
        waiting = Client()
        page = waiting.get(link).headers["Location"]
        assert waiting.get(page).status_code == 200
        user.is_active = False
        user.save()
        form = {"new_password1": GOOD, "new_password2": GOOD}
        assert waiting.post(page, form).status_code == 404
        user.is_active = True
        user.save()
        clock.shift(timedelta(hours=24, seconds=1))
        assert Client().get(link).status_code == 404


def test_link_that_was_tampered_with_opens_nothing() -> None:
    UserFactory(email=ADDRESS)
    link = reset_link(Client())
    head, number, token = link.rsplit("/", 2)
    for forged in (f"{head}/OTk/{token}", f"{head}/{number}/{token}x", f"{head}/x/set-password"):
        assert Client().get(forged).status_code == 404


# -- The password of who is logged in -------------------------------------------------------------


def test_changed_password_ends_every_other_session_and_keeps_this_one() -> None:
    user = UserFactory(username="anna")
    here, there = Client(), Client()
    for client in (here, there):
        client.force_login(user)
    form = {"old_password": "secret", "new_password1": GOOD, "new_password2": GOOD}
    wrong = here.post("/password/change", form | {"old_password": "x"})
    assert wrong.context["form"].errors["old_password"]
    assert here.post("/password/change", form).headers["Location"] == "/purchases"
    assert here.get("/purchases").status_code == 200
    assert there.get("/purchases").status_code == 302


def test_password_is_changed_by_who_is_logged_in_only() -> None:
    answer: Any = Client().post("/password/change", {})
    assert answer.headers["Location"].startswith("/login?next=")
