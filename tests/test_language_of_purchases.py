"""A purchase is in its buyer's language: Stripe's page, and the e-mails about it."""

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.test import Client
from django.utils import timezone

from offers.models import Offer
from offers_project.stripe_sandbox.checkout import LOCALES
from purchases import checkout, mail
from purchases.models import Email, Purchase
from purchases.states import Status
from tests.conftest import buy
from tests.factories import OfferFactory, PurchaseFactory, RefundFactory, UserFactory

pytestmark = pytest.mark.django_db(transaction=True)

GERMAN = {"Accept-Language": "de-AT,de;q=0.9,en;q=0.5"}
PAID_AT = datetime(2026, 6, 3, 10, 12, 30, tzinfo=UTC)


def browser(headers: dict[str, str]) -> Client:
    client = Client(headers=headers)
    client.force_login(UserFactory(email="buyer@example.com"))
    return client


def press_buy(client: Client, offer: Offer) -> Any:
    page = f"/events/{offer.event.slug}/offers/{offer.pk}"
    shown = client.get(page).content.decode()
    key = re.search(r'name="key" value="([^"]+)"', shown)[1]
    return client.post(page, {"key": key, "quantity": 1})


def written(purchase: Purchase, occasion: str, reference: str = "") -> tuple[str, str, str]:
    """Subject, text and HTML, with plain spaces."""
    email, _ = Email.objects.get_or_create(
        purchase=purchase,
        occasion=occasion,
        reference=reference,
        defaults={"due_at": timezone.now(), "created_at": timezone.now()},
    )
    message = mail.message(email, purchase)
    html = message.alternatives[0][0]
    said = (re.sub(r"\s+", " ", str(part)) for part in (message.subject, message.body, html))
    subject, text, html = said
    return subject, text, html


def test_purchase_on_a_german_page_is_paid_and_confirmed_in_german(sandbox: Any) -> None:
    press_buy(browser(GERMAN), OfferFactory())
    [session] = sandbox.sessions()
    assert session["locale"] == "de"
    sandbox.act(session["id"], "pay")
    sandbox.deliver()
    Purchase.objects.update(paid_at=PAID_AT)
    purchase = Purchase.objects.get()
    _, text, html = written(purchase, Email.Occasion.CONFIRMED)
    assert '<html lang="de">' in html
    for version in (text, html):
        assert "50,00 $" in version
        assert "3. Juni 2026 10:12 UTC" in version


def test_language_that_the_visitor_chose_goes_before_the_browsers(sandbox: Any) -> None:
    client = browser({"Accept-Language": "en"})
    client.cookies[settings.LANGUAGE_COOKIE_NAME] = "de"
    press_buy(client, OfferFactory())
    assert Purchase.objects.get().language == "de"


@pytest.mark.parametrize(
    ("asked", "language"),
    [("de", "de"), ("de-CH;q=0.8,fr", "de"), ("en-GB", "en"), ("fr", "en"), (None, "en")],
)
def test_api_takes_the_language_from_accept_language_and_answers_in_english(
    sandbox: Any, client_of: Any, asked: str | None, language: str
) -> None:
    client, offer = client_of(UserFactory()), OfferFactory()
    answer = client.post(
        "/api/v1/purchases/",
        {"offer": str(offer.pk)},
        headers={"Accept-Language": asked} if asked else {},
    )
    assert answer.status_code == 201
    assert "language" not in answer.json()
    assert Purchase.objects.get().language == language
    assert [session["locale"] for session in sandbox.sessions()] == [language]


def test_same_key_in_another_language_is_the_same_purchase_in_the_first_one(
    sandbox: Any, client_of: Any
) -> None:
    client, offer = client_of(UserFactory()), OfferFactory()
    first = buy(client, offer, key="k1")
    client.defaults["HTTP_ACCEPT_LANGUAGE"] = "de"
    second = buy(client, offer, key="k1")
    assert (first.status_code, second.status_code) == (201, 200)
    assert second.json() == first.json()
    assert Purchase.objects.get().language == "en"
    assert [session["locale"] for session in sandbox.sessions()] == ["en"]


def test_stripe_is_asked_the_same_again_whatever_language_the_retry_is_in(
    sandbox: Any, client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another ``locale`` under the same key would be refused."""
    client, offer = client_of(UserFactory()), OfferFactory()

    def crash(*args: Any) -> Any:
        raise RuntimeError("the process died")

    with monkeypatch.context() as patched:
        patched.setattr(checkout, "_record_session", crash)
        with pytest.raises(RuntimeError):
            buy(client, offer, key="k1")
    client.defaults["HTTP_ACCEPT_LANGUAGE"] = "de"
    assert buy(client, offer, key="k1").json()["status"] == "awaiting_payment"
    assert [session["locale"] for session in sandbox.sessions()] == ["en"]


def test_trying_again_is_in_the_language_of_that_page(sandbox: Any) -> None:
    client = browser(GERMAN)
    press_buy(client, OfferFactory())
    ended = Purchase.objects.get()
    client.post(f"/purchases/{ended.pk}/cancel")
    Purchase.objects.update(language="en")
    client.post(f"/purchases/{ended.pk}/again")
    assert Purchase.objects.exclude(pk=ended.pk).get().language == "de"


@pytest.mark.parametrize("occasion", Email.Occasion)
def test_every_letter_about_a_purchase_is_in_its_language(occasion: str) -> None:
    reader: Purchase = PurchaseFactory(status=Status.PAID, language="de")
    row = RefundFactory(purchase=reader, settled_at=PAID_AT)
    refund = str(row.pk) if occasion == Email.Occasion.REFUNDED else ""
    _, text, html = written(reader, occasion, refund)
    assert 'lang="de"' in html
    assert "50,00 $" in text
    assert "$50.00" not in text + html
    reader.language = "en"
    _, text, html = written(reader, occasion, refund)
    assert 'lang="en"' in html
    assert "$50.00" in text


def test_row_of_a_version_that_knew_no_languages_is_in_english() -> None:
    """As of those before the migration, and of processes still to be replaced after it."""
    purchase = PurchaseFactory(offer=OfferFactory(price=0), status=Status.PAID, language="de")
    left_out = {"id", "language", "checkout_session_id"}
    columns = [f.column for f in Purchase._meta.concrete_fields if f.column not in left_out]
    listed = ", ".join(columns)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO purchases_purchase (id, {listed}) "  # noqa: S608 - our own columns
            f"SELECT gen_random_uuid(), {listed} FROM purchases_purchase"
        )
    older = Purchase.objects.exclude(pk=purchase.pk).get()
    assert older.language == "en"
    assert 'lang="en"' in written(older, Email.Occasion.CONFIRMED)[2]


def test_stripes_page_exists_in_every_language_of_ours() -> None:
    assert {code for code, _ in settings.LANGUAGES} <= set(LOCALES)
