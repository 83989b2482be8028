"""An attendee on a phone gets an account, and into it again when its password is forgotten."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import expect

from tests.account_letters import GOOD, links, outbox, send
from tests.browser import labels
from tests.browser.visitor import PHONE, Visitor
from tests.factories import OfferFactory, UserFactory

pytestmark = pytest.mark.django_db(transaction=True)

ADDRESS = "anna.wolf@example.org"
EMAIL = "E-mail address"
NAME = "Your name"
SEND = "Send me the e-mail"


def letter(visitor: Visitor, name: str) -> str:
    """Send what is due, look at it as HTML, and return the path of its first link."""
    assert send() == 1
    sent = outbox()[-1]
    visitor.page.goto("about:blank")  # where the site's own policy doesn't count
    visitor.page.set_content(sent.alternatives[0][0])
    visitor.look(name)
    return links(sent.body)[0]


def focused(visitor: Visitor) -> str:
    return str(visitor.page.evaluate("document.activeElement.id"))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_attendee_registers_from_a_buy_attempt_and_lands_where_they_were(
    visit: Any, dark: bool
) -> None:
    offer = OfferFactory(title="Conference hoodie", price=0)
    shop = f"/events/{offer.event.slug}/offers"
    visitor = visit(size=PHONE, dark=dark)
    page = visitor.page
    tone = "dark" if dark else "light"

    visitor.open(shop)
    visitor.press("Buy Conference hoodie")
    visitor.look(f"account-login-{tone}")
    page.get_by_label(labels.USERNAME).fill(ADDRESS)
    page.get_by_label(labels.PASSWORD).fill("a guess")
    visitor.press(labels.LOG_IN)
    expect(page.get_by_role("alert")).to_contain_text("No account here")
    assert focused(visitor) == "id_username"
    visitor.look(f"account-login-wrong-{tone}")

    page.locator("main").get_by_role("link", name="Create an account").click()
    visitor.settle()
    visitor.look(f"account-register-{tone}")
    page.get_by_label(EMAIL).fill("anna")
    page.evaluate("document.querySelector('main form').noValidate = true")
    visitor.press(SEND)
    assert focused(visitor) == "id_email"
    visitor.look(f"account-register-wrong-{tone}")
    page.get_by_label(EMAIL).fill(ADDRESS)
    page.get_by_label(NAME).fill("Anna Wolf")
    visitor.press(SEND)
    expect(page.get_by_role("status").first).to_contain_text(ADDRESS)
    visitor.look(f"account-register-sent-{tone}")

    visitor.open(letter(visitor, f"account-letter-{tone}"))
    assert page.get_by_label(NAME).input_value() == "Anna Wolf"
    for field in ("Password", "The password once more"):
        page.get_by_label(field, exact=True).fill("annawolf")
    visitor.press("Create my account")
    expect(page.locator("#id_new_password1_error")).to_contain_text("too similar")
    assert focused(visitor) == "id_new_password1"
    visitor.look(f"account-weak-password-{tone}")
    for field in ("Password", "The password once more"):
        page.get_by_label(field, exact=True).fill(GOOD)
    visitor.press("Create my account")

    assert page.url.split("?")[0].endswith(f"{shop}/{offer.pk}")
    expect(page.get_by_role("status").first).to_contain_text("Your account is ready")
    expect(page.get_by_text("Logged in as Anna Wolf")).to_be_visible()
    visitor.look(f"account-ready-{tone}")
    assert User.objects.get(username=ADDRESS).get_full_name() == "Anna Wolf"


def test_attendee_mends_a_forgotten_password(visit: Any) -> None:
    user = UserFactory(username=ADDRESS, email=ADDRESS, first_name="Anna Wolf")
    offer = OfferFactory(price=0)
    shop = f"/events/{offer.event.slug}/offers"
    visitor = visit(size=PHONE)
    page = visitor.page

    visitor.open(f"/login?next={shop}")
    page.get_by_role("link", name="Forgot your password?").click()
    visitor.settle()
    visitor.look("account-forgotten")
    page.get_by_label(EMAIL).fill(ADDRESS.upper())
    visitor.press(SEND)
    visitor.look("account-forgotten-sent")

    link = letter(visitor, "account-letter-forgotten")
    visitor.open(link)
    visitor.look("account-new-password")
    page.get_by_label("New password", exact=True).fill(GOOD)
    page.get_by_label("The new password once more").fill("something else")
    visitor.press("Set the new password")
    expect(page.locator("#id_new_password2_error")).to_be_visible()
    assert focused(visitor) == "id_new_password2"
    page.get_by_label("New password", exact=True).fill(GOOD)
    page.get_by_label("The new password once more").fill(GOOD)
    visitor.press("Set the new password")
    assert page.url.endswith(shop)
    expect(page.get_by_role("status").first).to_contain_text("Your new password is set")
    user.refresh_from_db()
    assert user.check_password(GOOD)

    visitor.open(link, status=404)
    visitor.look("account-link-over")
    page.get_by_role("link", name="Change password").click()
    visitor.settle()
    visitor.look("account-change-password")
