"""Registration: an account exists once its address is proved, and strangers learn nothing."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from offers_project.accounts import registering
from offers_project.accounts.models import AccountLetter
from tests.account_letters import (
    ADDRESS,
    GOOD,
    ask_for_reset,
    ask_to_register,
    choose,
    links,
    outbox,
    register,
    register_link,
    send,
)
from tests.conftest import at_once
from tests.factories import UserFactory

pytestmark = pytest.mark.django_db(transaction=True)

NEXT = "/events/conf/offers?placement=LISTING#hoodie"


def is_logged_in(client: Client) -> bool:
    return client.get("/purchases").status_code == 200


# -- The whole way --------------------------------------------------------------------------------


def test_whoever_reads_the_letter_has_an_account_and_is_where_they_wanted_to_be() -> None:
    client = Client()
    answer = register(client, next=NEXT)
    assert (answer.status_code, answer.headers["Location"]) == (302, NEXT)
    user = User.objects.get()
    assert (user.username, user.email, user.get_full_name()) == (ADDRESS, ADDRESS, "Anna Wolf")
    assert (user.is_staff, user.is_superuser) == (False, False)
    assert client.session["_auth_user_id"] == str(user.pk)
    assert not AccountLetter.objects.exists()
    token = {"username": ADDRESS, "password": GOOD}
    assert Client().post("/api/v1/auth/token/", token, "application/json").status_code == 200


def test_there_is_no_account_before_the_letter_is_read() -> None:
    link = register_link(Client())
    assert Client().get(link).status_code == 302
    assert not User.objects.exists()


def test_link_works_in_another_browser_than_the_one_that_asked() -> None:
    link = register_link(Client(), next=NEXT)
    phone = Client()
    assert choose(phone, link).headers["Location"] == NEXT
    assert is_logged_in(phone)


def test_name_can_be_corrected_by_whom_it_belongs_to() -> None:
    link = register_link(Client(), name="Somebody else's joke")
    client = Client()
    page = client.get(client.get(link).headers["Location"]).content.decode()
    assert "Somebody else&#x27;s joke" in page
    choose(client, link, name="  Anna \t Wolf ")
    assert User.objects.get().first_name == "Anna Wolf"


def test_address_is_one_in_every_spelling() -> None:
    register(Client(), "Anna@Example.ORG")
    assert User.objects.get().email == ADDRESS
    ask_to_register(Client(), "ANNA@example.org")
    send()
    assert outbox()[-1].subject == "You have an account already"


def test_address_with_a_domain_in_other_letters_is_kept_as_mail_servers_know_it() -> None:
    register(Client(), "anna@bücher.example")
    assert User.objects.get().email == "anna@xn--bcher-kva.example"


@pytest.mark.parametrize("address", ["ann\u0131@example.org", "\u212aate@example.org"])
def test_letters_that_only_look_alike_are_no_address(address: str) -> None:
    answer = ask_to_register(Client(), address)
    assert answer.status_code == 200
    assert answer.context["form"].errors["email"]
    assert not AccountLetter.objects.exists()


# -- Where they were on the way to ----------------------------------------------------------------


@pytest.mark.parametrize(
    "foreign", ["https://evil.example/", "//evil.example", "javascript:alert(1)", "/\\evil.example"]
)
def test_next_leads_to_no_other_site(foreign: str) -> None:
    client = Client()
    answer = register(client, next=foreign)
    assert answer.headers["Location"] == "/"
    assert "evil" not in client.get("/register", {"next": foreign}).content.decode()


def test_next_is_asked_about_once_more_in_the_end() -> None:
    link = register_link(Client(), next=NEXT)
    AccountLetter.objects.update(next="https://evil.example/")
    assert choose(Client(), link).headers["Location"] == "/"


@pytest.mark.parametrize("ask", [ask_to_register, ask_for_reset])
@pytest.mark.parametrize("odd", ["/a\x00b", "/" + "a" * 2048], ids=["NUL", "long"])
def test_next_that_cannot_be_kept_is_forgotten(ask: Callable[..., Any], odd: str) -> None:
    answer = ask(Client(), next=odd)
    assert answer.status_code == 302
    assert "next" not in answer.headers["Location"]
    assert AccountLetter.objects.get().next == ""


def test_next_goes_along_on_every_page_and_in_the_letter_to_who_has_an_account() -> None:
    client = Client()
    kept = "next=/events/conf/offers"
    assert kept in client.get(f"/login?{kept}").content.decode()
    page = client.get(f"/register?{kept}").content.decode()
    assert f"/login?{kept}" in page
    assert 'name="next" value="/events/conf/offers"' in page
    UserFactory(email=ADDRESS)
    answer = ask_to_register(client, next="/events/conf/offers")
    assert kept in client.get(answer.headers["Location"]).content.decode()
    send()
    assert "/login?next=%2Fevents%2Fconf%2Foffers" in links(outbox()[-1].body)


def test_who_is_logged_in_is_led_on_at_once() -> None:
    client = Client()
    client.force_login(UserFactory())
    assert client.get("/register", {"next": NEXT}).headers["Location"] == NEXT
    assert client.get("/register").headers["Location"] == "/purchases"
    assert client.get("/login").headers["Location"] == "/purchases"
    assert client.get("/login", {"next": "//evil.example"}).headers["Location"] == "/purchases"


# -- What strangers learn -------------------------------------------------------------------------


def shown_to_a_stranger(email: str) -> tuple[Any, ...]:
    """All that the answers and the time they take depend on; the address itself left out."""
    client = Client()
    client.get("/register")
    with CaptureQueriesContext(
        connection,
    ) as queries:
        answer = ask_to_register(client, email)
    page = client.get(answer.headers["Location"])
    text = re.sub(r'(csrfmiddlewaretoken" value|data-now)="[^"]*"', "", page.content.decode())
    return (
        answer.status_code,
        answer.headers["Location"],
        len(queries),
        page.status_code,
        text.replace(email, "…"),
    )


def test_answer_is_the_same_for_new_known_and_closed_addresses() -> None:
    UserFactory(email="known@example.org")
    UserFactory(email="closed@example.org", is_active=False)
    UserFactory(email="several@example.org")
    UserFactory(email="Several@example.org")
    shown = {
        shown_to_a_stranger(f"{who}@example.org") for who in ("new", "known", "closed", "several")
    }
    assert len(shown) == 1


@pytest.mark.parametrize("address", ["anna@example.org", "Anna@Example.org"])
def test_who_has_an_account_is_told_so_by_letter_only(address: str) -> None:
    UserFactory(username="anna", email=address)
    ask_to_register(Client())
    send()
    letter = outbox()[-1]
    assert letter.to == [ADDRESS]
    assert letter.subject == "You have an account already"
    assert "user name: anna" in letter.body
    assert links(letter.body) == ["/login", "/password/reset"]
    assert not AccountLetter.objects.exists()


def test_closed_account_stays_closed() -> None:
    user = UserFactory(email=ADDRESS, is_active=False)
    ask_to_register(Client())
    send()
    assert "closed" in outbox()[-1].body
    assert links(outbox()[-1].body) == []
    user.refresh_from_db()
    assert (User.objects.count(), user.is_active) == (1, False)


def test_user_name_of_an_account_whose_address_was_changed_is_not_given_away() -> None:
    user = UserFactory(username=ADDRESS, email="other@example.org")
    ask_to_register(Client())
    send()
    letter = outbox()[-1]
    for text in (letter.body, letter.alternatives[0][0]):
        assert "closed" not in text
        assert "other@" not in text
        assert "log in with this address" in text
    assert links(letter.body) == ["/login", "/password/reset"]
    assert not AccountLetter.objects.exists()
    client = Client()
    client.post("/login", {"username": ADDRESS, "password": "secret"})
    assert client.session["_auth_user_id"] == str(user.pk)


def test_user_name_of_a_closed_account_whose_address_was_changed_is_not_given_away() -> None:
    UserFactory(username=ADDRESS, email="other@example.org", is_active=False)
    ask_to_register(Client())
    send()
    assert "closed" in outbox()[-1].body
    assert links(outbox()[-1].body) == []


def test_nothing_a_stranger_typed_is_in_the_letter() -> None:
    register_link(Client(), name="Buy pills at evil.example", next="/events/win-a-prize/offers")
    letter = outbox()[-1]
    for text in (letter.body, letter.alternatives[0][0], letter.subject):
        assert "evil" not in text
        assert "prize" not in text


def test_letter_is_in_the_language_that_the_visitor_reads(settings: Any) -> None:
    ask = Client(headers={"Accept-Language": "de"})
    ask_to_register(ask)
    assert AccountLetter.objects.get().language == "de"
    send()
    assert 'lang="de"' in outbox()[-1].alternatives[0][0]


# -- Links that don't work ------------------------------------------------------------------------


def test_used_link_makes_no_second_account() -> None:
    link = register_link(Client())
    choose(Client(), link)
    later = Client()
    answer = choose(later, link, "another long password")
    assert answer.status_code == 404
    assert "simply log in" in answer.content.decode()
    assert User.objects.get().check_password(GOOD)


def test_page_that_was_left_open_makes_no_second_account() -> None:
    client = Client()
    link = register_link(client)
    other = Client()
    other.get(link)
    choose(client, link)
    form = {"name": "X", "new_password1": GOOD + "!", "new_password2": GOOD + "!"}
    assert other.post("/register/password", form).status_code == 404
    assert not is_logged_in(other)


def test_second_letter_to_the_same_address_is_worth_nothing_after_the_first() -> None:
    first, second = register_link(Client()), register_link(Client())
    choose(Client(), second)
    assert choose(Client(), first).status_code == 404
    assert User.objects.count() == 1


def test_link_ends_after_a_day() -> None:
    with time_machine.travel("2026-01-01T12:00:00Z", tick=False) as clock:
        link = register_link(Client())
        clock.shift(timedelta(hours=24))
        assert Client().get(link).status_code == 302
        clock.shift(timedelta(seconds=1))
        assert Client().get(link).status_code == 404
    assert not User.objects.exists()


def test_page_of_a_link_that_ends_meanwhile_makes_no_account() -> None:
    client = Client()
    with time_machine.travel("2026-01-01T12:00:00Z", tick=False) as clock:
        client.get(register_link(client))
        clock.shift(timedelta(hours=25))
        form = {"name": "X", "new_password1": GOOD, "new_password2": GOOD}
        assert client.post("/register/password", form).status_code == 404
    assert not User.objects.exists()


def test_link_that_was_tampered_with_opens_nothing() -> None:
    link = register_link(Client())
    head, token = link.rsplit("/", 1)
    number, at, signature = token.split(".")
    other = AccountLetter.objects.create(
        kind="registration", address="victim@example.org", language="en", site="",
        due_at=timezone.now(), created_at=timezone.now(),
    )  # fmt: skip
    for forged in (
        f"{other.pk.hex}.{at}.{signature}", f"{number}.zzzzzz.{signature}", f"{number}.{at}",
        number, f"{token}x", "x", "0" * 32,
    ):  # fmt: skip
        assert Client().get(f"{head}/{forged}").status_code == 404
    assert Client().get("/register/password").status_code == 404


def test_registrations_that_nobody_ended_are_forgotten() -> None:
    register_link(Client())
    send(later=timedelta(hours=47))
    assert AccountLetter.objects.exists()
    send(later=timedelta(hours=49))
    assert not AccountLetter.objects.exists()


# -- At once --------------------------------------------------------------------------------------


def test_confirmations_of_one_address_at_once_make_one_account() -> None:
    asked = [register_link(Client()) for _ in range(3)] * 2

    def follow(number: int) -> Any:
        client = Client()
        answer = choose(client, asked[number], f"a long password {number}")
        return answer.status_code, is_logged_in(client)

    answers = at_once([lambda number=number: follow(number) for number in range(6)])
    assert sorted(answers) == [(302, True)] + [(404, False)] * 5
    assert User.objects.filter(email=ADDRESS).count() == 1


def test_row_written_meanwhile_is_caught_by_the_unique_user_name() -> None:
    """A registration that the lock didn't see, since it was asked for later, and was faster."""
    letter = registering.opened_by(register_link(Client()).rsplit("/", 1)[1])
    assert letter
    before = registering.accounts_of

    def slow(address: str) -> list[User]:
        found = before(address)
        at_once([lambda: UserFactory(username=address, email=address)])
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registering, "accounts_of", slow)
        assert registering.register(letter, name="A", password=GOOD) is None
    assert User.objects.count() == 1


# -- What is wrong is said beside the field -------------------------------------------------------


def test_errors_are_tied_to_their_fields_and_the_first_has_the_focus() -> None:
    page = Client().post("/register", {"email": "anna", "name": ""}).content.decode()
    email, name = re.findall(r"<input[^>]*id=\"id_(?:email|name)\"[^>]*>", page)
    assert 'aria-describedby="id_email_error"' in email
    assert "autofocus" in email
    assert 'autocomplete="email"' in email
    assert "autofocus" not in name
    assert 'aria-invalid="true"' in name
    assert 'autocomplete="name"' in name
    assert "It should look like anna@example.org" in page
    assert page.count("autofocus") == 1


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("short", "too short"),
        ("password1", "too common"),
        ("8273649182", "entirely numeric"),
        ("anna@example.or", "too similar to the username"),
        ("annawolf", "too similar to the first name"),
    ],
)
def test_weak_password_is_refused_with_the_reason_beside_it(password: str, why: str) -> None:
    answer = choose(Client(), register_link(Client()), password)
    assert why in " ".join(answer.context["form"].errors["new_password1"])
    assert not User.objects.exists()
    assert AccountLetter.objects.exists()
