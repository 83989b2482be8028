"""Codes: as text, as QR code for their buyer, and on the page where staff check them."""

import io
import re
import secrets
from types import SimpleNamespace
from typing import Any

import pytest
import segno
from django.contrib.auth.models import User
from django.test import Client

from fulfillment.codes import checking, qr, text
from fulfillment.errors import NotPaidFor
from fulfillment.models import Fulfillment
from fulfillment.tickets import checking as ticket_checking
from fulfillment.tickets.models import TicketUpgrade
from offers.models import Membership, Registration
from purchases import states
from tests.factories import (
    EventFactory,
    MembershipFactory,
    PurchaseFactory,
    RegistrationFactory,
    TicketTierFactory,
    UserFactory,
)
from tests.ticket_upgrades import move_by_hand, move_money, paid_upgrade, refund, upgrade

pytestmark = pytest.mark.django_db


def svg_of(said: str) -> bytes:
    """The same symbol, built from the standard's parts alone."""
    file = io.BytesIO()
    symbol = segno.make(said, micro=False, error="m")
    symbol.save(file, kind="svg", scale=8, border=4, light="white", omitsize=True)
    return file.getvalue()


# -- Text and pictures ----------------------------------------------------------------------------


def test_codes_can_not_be_guessed_and_have_no_letters_that_look_alike() -> None:
    codes = {text.new() for _ in range(1000)}
    assert len(codes) == 1000
    assert len(text.ALPHABET) ** text.LENGTH >= 2**60
    assert set("".join(codes)) == set(text.ALPHABET)
    assert not set("ILOU") & set(text.ALPHABET)
    assert text.secrets is secrets


@pytest.mark.parametrize(
    "typed",
    [
        "7K3M9QWX1Z02", "7k3m-9qwx-1z02", " 7K3M 9QWX 1Z02 ", "7k3m9qwxIzO2", "7K3M9QWXLZo2",
        "https://shop.example.com/check-in/7K3M9QWX1Z02", "/check-in/7k3m-9qwx-1z02/",
    ],
)  # fmt: skip
def test_code_is_read_however_it_is_typed(typed: str) -> None:
    assert text.read(typed) == "7K3M9QWX1Z02"
    assert text.read(text.spaced("7K3M9QWX1Z02")) == "7K3M9QWX1Z02"


@pytest.mark.parametrize(
    "typed", ["", "/", "7K3M", "7K3M9QWX1Z023", "7K3M9QWX1Z0U", "٣" * 12, "😀"]
)
def test_what_can_not_be_a_code_is_none(typed: str) -> None:
    assert text.read(typed) is None


def test_qr_code_says_exactly_the_address() -> None:
    said = text.address("7K3M9QWX1Z02", site="https://shop.example.com")
    assert said == "https://shop.example.com/check-in/7K3M9QWX1Z02"
    assert qr.svg(said) == svg_of(said) != svg_of(said + "x")
    assert qr.png(said).startswith(b"\x89PNG")
    assert not re.search(rb"<script|<style|style=", qr.svg(said))
    # A phone reads it from paper: the quiet zone of four modules around it is white.
    assert qr.symbol(said).error in ("M", "Q", "H")
    assert b'fill="#fff" d="M0 0h' in qr.svg(said)


# -- The picture, for its buyer -------------------------------------------------------------------


@pytest.fixture
def registration() -> Registration:
    event = EventFactory(title="Conf")
    return RegistrationFactory(
        event=event,
        user=UserFactory(username="ada", first_name="Ada", last_name="Lovelace"),
        ticket_tier=TicketTierFactory(event=event, title="Standard", slug="standard"),
    )


@pytest.fixture
def tiers(registration: Registration) -> list[Any]:
    return [
        TicketTierFactory(event=registration.event, title=title) for title in ("Silver", "Gold")
    ]


def browser_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


@pytest.mark.parametrize(("kind", "mime"), [("svg", "image/svg+xml"), ("png", "image/png")])
def test_code_is_drawn_for_its_buyer_only(
    registration: Registration, tiers: list[Any], client_of: Any, kind: str, mime: str
) -> None:
    upgraded = upgrade(registration, tiers[0])
    path = f"/purchases/{upgraded.fulfillment.purchase_id}/code.{kind}"
    drawn = getattr(qr, kind)(f"http://testserver/check-in/{upgraded.code}")
    for client in (browser_of(registration.user), client_of(registration.user)):
        answer = client.get(path, headers={"Accept": "image/avif,image/webp"})
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, mime)
        assert answer.content == drawn
        assert "no-store" in answer.headers["Cache-Control"]
    staff = MembershipFactory(organization=registration.event.organization).user
    for user in (staff, UserFactory(), UserFactory(is_superuser=True)):
        assert browser_of(user).get(path).status_code == 404
    assert Client().get(path).status_code == 401
    assert browser_of(registration.user).post(path).status_code == 405


def test_code_is_drawn_only_while_it_is_handed_out(
    registration: Registration, tiers: list[Any]
) -> None:
    browser = browser_of(registration.user)
    waiting = paid_upgrade(registration, tiers[0])
    mug = PurchaseFactory(user=registration.user, status="paid")
    for purchase in (waiting, mug):
        assert browser.get(f"/purchases/{purchase.pk}/code.svg").status_code == 404
    upgraded = upgrade(registration, tiers[1])
    path = f"/purchases/{upgraded.fulfillment.purchase_id}/code.svg"
    assert browser.get(path).status_code == 200
    refund(upgraded)
    assert browser.get(path).status_code == 404


def test_page_of_an_earlier_upgrade_leads_to_the_code_that_counts(
    registration: Registration, tiers: list[Any]
) -> None:
    browser = browser_of(registration.user)
    first, second = (upgrade(registration, tier) for tier in tiers)
    path = f"/purchases/{first.fulfillment.purchase_id}"

    page = browser.get(path).content.decode()
    assert "You have upgraded to Gold since" in page
    assert f'href="/purchases/{second.fulfillment.purchase_id}"' in page
    assert "<img" not in page
    assert "<img" in browser.get(f"/purchases/{second.fulfillment.purchase_id}").content.decode()

    refund(second)
    assert "<img" in browser.get(path).content.decode()


# -- The page that checks them --------------------------------------------------------------------


@pytest.fixture
def door(registration: Registration) -> Client:
    """Somebody at the door, with the least of the roles."""
    role = Membership.Role.SUPPORT
    return browser_of(
        MembershipFactory(organization=registration.event.organization, role=role).user
    )


def check(door: Client, upgraded: TicketUpgrade) -> str:
    answer = door.get(f"/check-in/{upgraded.code}")
    assert answer.status_code == 200
    page = answer.content.decode()
    assert "Ada Lovelace (ada)" in page
    assert "Conf" in page
    return " ".join(re.search(r"<h1[^>]*>(.*?)</h1>", page)[1].split())


def test_code_is_valid_superseded_by_a_later_one_and_valid_again(
    registration: Registration, tiers: list[Any], door: Client
) -> None:
    first = upgrade(registration, tiers[0])
    assert check(door, first) == "Valid: Silver"
    second = upgrade(registration, tiers[1])
    assert [check(door, each) for each in (first, second)] == ["Superseded", "Valid: Gold"]
    refund(second)
    assert [check(door, each) for each in (first, second)] == ["Valid: Silver", "Refunded"]
    third = upgrade(registration, tiers[1])
    refund(first)
    assert [check(door, each) for each in (first, third)] == ["Refunded", "Valid: Gold"]


def test_code_of_money_on_its_way_back_counts_no_more_and_the_one_before_does(
    registration: Registration, tiers: list[Any], door: Client
) -> None:
    first, second = (upgrade(registration, tier) for tier in tiers)
    move_money(second.fulfillment.purchase, states.REQUEST_REFUND)
    # One of the two is always valid, or the attendee stands outside.
    assert [check(door, each) for each in (first, second)] == ["Valid: Gold", "Refunded"]
    move_money(second.fulfillment.purchase, states.REFUND_FAILED)
    assert [check(door, each) for each in (first, second)] == ["Superseded", "Valid: Gold"]


def test_page_says_when_staff_have_changed_the_ticket_since(
    registration: Registration, tiers: list[Any], door: Client
) -> None:
    upgraded = upgrade(registration, tiers[0])
    move_by_hand(registration, tiers[1])
    assert check(door, upgraded) == "Valid: Gold"
    page = door.get(f"/check-in/{upgraded.code}").content.decode()
    assert "Bought was Silver; staff have changed it since." in page


def test_typed_code_leads_to_its_page(
    registration: Registration, tiers: list[Any], door: Client
) -> None:
    upgraded = upgrade(registration, tiers[0])
    form = door.get("/check-in").content.decode()
    assert 'name="code"' in form
    for typed in (upgraded.code, text.spaced(upgraded.code).lower(), f" {upgraded.code} "):
        answer = door.get("/check-in", {"code": typed})
        assert (answer.status_code, answer.url) == (302, f"/check-in/{upgraded.code}")
    wrong = door.get("/check-in", {"code": "7K3"})
    assert "None of your events has this code" in wrong.content.decode()
    assert door.get(f"/check-in/{text.spaced(upgraded.code).lower()}").status_code == 200


def test_code_of_another_organization_looks_like_one_that_does_not_exist(
    registration: Registration, tiers: list[Any]
) -> None:
    upgraded = upgrade(registration, tiers[0])
    rival = browser_of(MembershipFactory().user)
    unknown = "0" * text.LENGTH
    answers = [rival.get(f"/check-in/{code}") for code in (upgraded.code, unknown)]
    assert [answer.status_code for answer in answers] == [404, 404]
    pages = [
        answer.content.decode().replace(code, "")
        for answer, code in zip(answers, (upgraded.code, unknown), strict=True)
    ]
    assert without_tokens(pages[0]) == without_tokens(pages[1])
    assert "Ada" not in without_tokens(pages[0])


def without_tokens(page: str) -> str:
    return re.sub(r'name="csrfmiddlewaretoken" value="\w+"', "", page)


def test_who_works_for_nobody_is_told_nothing(registration: Registration, tiers: list[Any]) -> None:
    upgraded = upgrade(registration, tiers[0])
    for path in ("/check-in", f"/check-in/{upgraded.code}", f"/check-in/{'0' * text.LENGTH}"):
        assert browser_of(registration.user).get(path).status_code == 403
        assert Client().get(path).url.startswith("/login?next=/check-in")
    superuser = browser_of(UserFactory(is_superuser=True))
    assert superuser.get(f"/check-in/{upgraded.code}").status_code == 200


def test_codes_are_in_no_log(
    registration: Registration, tiers: list[Any], door: Client, caplog: pytest.LogCaptureFixture
) -> None:
    upgraded = upgrade(registration, tiers[0])
    caplog.set_level("DEBUG")
    caplog.clear()
    door.get(f"/check-in/{upgraded.code}")
    door.get("/check-in", {"code": upgraded.code})
    assert "/check-in" in caplog.text
    assert upgraded.code not in caplog.text


# -- Other kinds of codes -------------------------------------------------------------------------


def test_ticket_has_no_button(registration: Registration, tiers: list[Any], door: Client) -> None:
    upgraded = upgrade(registration, tiers[0])
    assert "Hand over" not in door.get(f"/check-in/{upgraded.code}").content.decode()
    assert door.post(f"/check-in/{upgraded.code}").status_code == 405


def test_kind_that_can_be_handed_over_has_a_button_that_does_it(
    registration: Registration, tiers: list[Any], door: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgraded = upgrade(registration, tiers[0])
    handed: list[tuple[Any, Any]] = []

    def hand_over(fulfillment_id: Any, *, actor: User, now: Any) -> None:
        if handed:
            raise NotPaidFor
        handed.append((fulfillment_id, actor))

    def show(fulfillment: Fulfillment) -> dict[str, Any]:
        return ticket_checking.show(fulfillment) | {"may_hand_over": not handed}

    kind = SimpleNamespace(
        find=ticket_checking.find,
        TEMPLATE=ticket_checking.TEMPLATE,
        show=show,
        hand_over=hand_over,
    )
    monkeypatch.setitem(checking.KINDS, "TICKET", kind)
    path = f"/check-in/{upgraded.code}"

    support_sees = door.get(path).content.decode()
    assert "<button>Hand over</button>" not in support_sees
    assert "An owner or a manager" in support_sees
    assert door.post(path).status_code == 403
    assert handed == []
    Membership.objects.filter(role=Membership.Role.SUPPORT).update(role=Membership.Role.MANAGER)

    assert "<button>Hand over</button>" in door.get(path).content.decode()
    assert (answer := door.post(path)).url == path, answer
    page = door.get(path).content.decode()
    assert "Handed over." in page
    assert "<button>Hand over</button>" not in page
    assert [pk for pk, _ in handed] == [upgraded.fulfillment_id]
    door.post(path)
    assert "isn&#x27;t paid (any more)" in door.get(path).content.decode()
    assert browser_of(MembershipFactory().user).post(path).status_code == 404
    assert browser_of(registration.user).post(path).status_code == 403
    assert len(handed) == 1
