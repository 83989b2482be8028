"""Each page and letter that attendees get, for a browser that asks for German: nothing is English.

Two ways to find what is: the catalogue's msgids that have another translation, and words that
German hasn't, for texts that nobody marked. What organizers write is German here too.
"""

import re
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.core.mail import EmailMultiAlternatives
from django.db import transaction
from django.test import Client
from django.utils import timezone, translation
from django.views import defaults
from waffle.models import Switch

from fulfillment import transitions as fulfillment_transitions
from fulfillment.bookings.models import ServiceDetails
from fulfillment.digital import links
from fulfillment.models import Fulfillment
from fulfillment.shipping import orders
from fulfillment.states import REVOKE
from offers.models import Event, Offer
from purchases import mail
from purchases.models import Email, Purchase
from purchases.states import ReleaseReason, Status
from tests import account_letters
from tests.booked_services import Service
from tests.conftest import deliver_now
from tests.factories import (
    DigitalContentFactory,
    EventFactory,
    OfferFactory,
    PurchaseFactory,
    RefundFactory,
    RegistrationFactory,
    TicketTierFactory,
    UserFactory,
    make_fulfillment,
)
from tests.test_languages import CATALOGUE, PLACEHOLDER, ROOT, messages, pairs, read
from tests.test_mail import tell
from tests.test_shipping import collected, paid, placed, ship
from tests.ticket_upgrades import move_by_hand, refund, upgrade
from tests.visible_text import visible_text

pytestmark = pytest.mark.django_db

GERMAN = {"Accept-Language": "de"}
# Of every English sentence one or the other; none of them is a German word.
ENGLISH = re.compile(
    r"\b(the|this|that|you|your|is|are|and|of|for|not|to|be|with|until|from|it|its|has|have|can|"
    r"been|please|there|again|by|on|at|or|choose|enter|field|required|password)\b",
    re.IGNORECASE,
)
# The reader is du (docs/decisions.md).
FORMAL = re.compile(r"\b(?:Sie|Ihnen|Ihre?[mnrs]?)\b")
ADDRESS = {
    "name": "Lena Fischer", "line1": "Hafenstraße 7", "line2": "", "postal_code": "20359",
    "city": "Hamburg", "state": "", "country": "DE",
}  # fmt: skip


def _pieces() -> Iterator[str]:
    """What is fixed of each English text that has another one in German."""
    for message in messages(read(ROOT / CATALOGUE)):
        for english, german in pairs(message):
            if english == german:
                continue
            pieces = [piece.strip() for piece in PLACEHOLDER.split(english)]
            # A word alone is a text of its own, and among what is filled in may be anybody's.
            long = [piece for piece in pieces if " " in piece or piece == english]
            yield from (re.escape(piece) for piece in long if re.search(r"[^\W\d]{2}", piece))


MSGIDS = re.compile(rf"(?<!\w)(?:{'|'.join(sorted(_pieces(), key=len, reverse=True))})(?!\w)")


def is_german(answer: Any, *said: str, status: int = 200) -> str:
    """The text of a page, which is German; ``said`` is some of it."""
    assert answer.status_code == status
    html = answer.content.decode()
    assert '<html lang="de">' in html
    text = has_no_english(visible_text(html))
    for each in said:
        assert each in text
    return text


def has_no_english(text: str) -> str:
    assert MSGIDS.findall(text) == [], text
    assert ENGLISH.findall(text) == [], text
    assert FORMAL.findall(text) == [], text
    return text


@pytest.fixture
def user() -> User:
    made: User = UserFactory(username="lena", first_name="Lena Fischer", email="lena@example.com")
    return made


@pytest.fixture
def browser(user: User) -> Client:
    client = Client(headers=GERMAN)
    client.force_login(user)
    return client


@pytest.fixture
def stranger() -> Client:
    return Client(headers=GERMAN)


@pytest.fixture
def event() -> Event:
    made: Event = EventFactory(
        title="Hafentage",
        slug="hafentage",
        description="Drei Tage Musik am alten Kai.",
        starts_at=timezone.now().replace(year=2031, month=6, day=3, hour=10, minute=0),
    )
    return made


@pytest.fixture
def sell(event: Event) -> Callable[..., Offer]:
    def make(**facts: Any) -> Offer:
        offer: Offer = OfferFactory(**{"event": event, "title": "Kapuzenpulli"} | facts)
        return offer

    return make


# -- What is on sale ------------------------------------------------------------------------------


def test_events(stranger: Client, browser: Client, user: User, event: Event) -> None:
    is_german(stranger.get("/"), "Hafentage", "3. Juni 2031", "Anmelden")
    now = timezone.now()
    private = EventFactory(title="Werktag", is_public=False)
    RegistrationFactory(event=private, user=user, ticket_tier__title="Gast")
    EventFactory(title="Winterfest", starts_at=now - timedelta(9), ends_at=now - timedelta(8))
    is_german(browser.get("/"), "Privat", "Vergangene Events", "Meine Käufe", "Abmelden")


def test_no_events(stranger: Client, browser: Client) -> None:
    is_german(stranger.get("/"), "keine öffentlichen Events")
    is_german(browser.get("/"), "noch keine Events")


def test_every_kind_of_offer(
    browser: Client, stranger: Client, user: User, event: Event, sell: Callable[..., Offer]
) -> None:
    now = timezone.now()
    tier, vip = (TicketTierFactory(event=event, title=title) for title in ("Parkett", "Loge"))
    RegistrationFactory(event=event, user=user, ticket_tier=tier)
    shown: dict[str, Offer] = {
        "50,00 $": sell(shipping_countries=["DE"], original_price=Decimal(1250)),
        "nur noch 7 verfügbar": sell(inventory_total=7, expires_at=now + timedelta(hours=30)),
        "Im Verkauf bis: ": sell(price=0, expires_at=now + timedelta(days=30)),
        "Im Verkauf ab: ": sell(starts_at=now + timedelta(days=2)),
        "Ausverkauft": sell(inventory_total=0),
        "gibt es in den nächsten 15 Minuten": sell(inventory_total=1),
        "gibt es 1 Stück pro Person": sell(max_per_user=1),
        "Exklusive Inhalte": sell(offer_type="EXCLUSIVE_CONTENT", placement="CHECKOUT"),
        "Service": sell(offer_type="SERVICE", price=1),
        "Das ist schon dein Ticket": sell(offer_type="TICKET_UPGRADE", ticket_tier=tier),
        "für andere Ticketkategorien": sell(placement="EMAIL"),
    }
    shown["für andere Ticketkategorien"].target_ticket_tiers.add(vip)
    PurchaseFactory(offer=shown["gibt es in den nächsten 15 Minuten"])
    PurchaseFactory(offer=shown["gibt es 1 Stück pro Person"], user=user)
    path = f"/events/{event.slug}/offers"
    for words, offer in shown.items():
        is_german(browser.get(f"{path}/{offer.pk}"), words)
        is_german(stranger.get(f"{path}/{offer.pk}"))
    whole = is_german(browser.get(path), "Mach mehr daraus", "Zu deinem Ticket", "1.250,00 $")
    assert "Für dich reserviert: 1 × Kapuzenpulli." in whole
    is_german(stranger.get(path), "Mach mehr daraus")
    is_german(browser.get(f"{path}?placement=CHECKOUT"), "Alle Angebote dieses Events")


def test_paused_sales(browser: Client, sell: Callable[..., Offer]) -> None:
    offer = sell()
    Switch.objects.update_or_create(name="purchases", defaults={"active": False})
    path = f"/events/{offer.event.slug}/offers"
    is_german(browser.get(path), "Der Verkauf macht gerade Pause")
    is_german(browser.get(f"{path}/{offer.pk}"), "Im Moment nicht im Verkauf")


def test_event_without_offers(browser: Client, stranger: Client, event: Event) -> None:
    for who in (browser, stranger):
        is_german(who.get(f"/events/{event.slug}/offers"), "ist für dich nichts im Verkauf")


@pytest.mark.parametrize(
    ("offer", "form", "said"),
    [
        ({"inventory_total": 2}, {"quantity": 3}, "Nur noch 2 verfügbar"),
        ({"inventory_total": 0}, {}, "ausverkauft"),
        ({"max_per_user": 1}, {"quantity": 2}, "1 Stück pro Person, und du hast 0"),
        ({"is_active": False}, {}, "nicht im Verkauf"),
        ({}, {"quantity": 0}, "größer oder gleich 1"),
        ({}, {"quantity": "x"}, "gültige Ganzzahl"),
        ({"inventory_total": None}, {"quantity": 1001}, "Auf einmal lassen sich höchstens"),
        ({}, {"delivery_method": "x"}, "Möglich sind: shipping, collection."),
        ({}, {"delivery_method": "shipping"}, "Nimm collection, oder lass"),
        ({}, {"key": "x"}, "Formular ist beschädigt"),
        ({"price": Decimal(900_000)}, {"quantity": 2}, "So viele kosten mehr"),
    ],
)
def test_refusals_of_buy(
    browser: Client,
    sell: Callable[..., Offer],
    offer: dict[str, Any],
    form: dict[str, Any],
    said: str,
) -> None:
    wanted = sell(**offer)
    path = f"/events/{wanted.event.slug}/offers/{wanted.pk}"
    form = {"key": str(uuid.uuid4()), "offer": str(wanted.pk), "quantity": 1} | form
    is_german(browser.get(browser.post(path, form).url), said)


def test_too_many_tries(browser: Client, sell: Callable[..., Offer], settings: Any) -> None:
    settings.PURCHASE_RATE_LIMIT = "0/m"
    offer = sell()
    answer = browser.post(f"/events/{offer.event.slug}/offers/{offer.pk}", {"quantity": 1})
    is_german(browser.get(answer.url), "Zu viele Versuche: Warte")


# -- What was bought ------------------------------------------------------------------------------


def is_german_letter(letter: EmailMultiAlternatives) -> None:
    [(html, _)] = letter.alternatives
    assert '<html lang="de">' in str(html)
    for text in (letter.subject, letter.body, visible_text(str(html))):
        has_no_english(re.sub(r"https?://\S+", "", str(text)))


def pages_of(browser: Client, purchase: Purchase) -> str:
    """The text of all pages about it, which are German, as are the letters so far."""
    Purchase.objects.filter(pk=purchase.pk).update(language="de")
    for email in Email.objects.filter(purchase=purchase):
        is_german_letter(mail.message(email, Purchase.objects.get(pk=purchase.pk)))
    paths = (
        f"/events/{purchase.event.slug}/offers/success?session_id={purchase.checkout_session_id}",
        f"/purchases/{purchase.pk}",
        "/purchases",
    )
    return " ".join(is_german(browser.get(path)) for path in paths)


@pytest.mark.parametrize("status", sorted(set(Status) - {Status.RESERVED}))
def test_each_state_of_a_purchase(
    browser: Client, user: User, sell: Callable[..., Offer], status: str
) -> None:
    purchase = PurchaseFactory(offer=sell(), user=user, status=status)
    assert "50,00 $" in pages_of(browser, purchase)
    if status == Status.AWAITING_PAYMENT:
        Purchase.objects.update(checkout_url="https://checkout.example/pay")
        assert "Kauf abbrechen" in pages_of(browser, purchase)
        Purchase.objects.update(reserved_until=timezone.now() - timedelta(minutes=1))
        assert "Zeit abgelaufen" in pages_of(browser, purchase)
    if status == Status.PAID:
        Purchase.objects.update(refunded_amount=Decimal(20))
        assert "20,00 $ zurückgeschickt" in pages_of(browser, purchase)


@pytest.mark.parametrize("reason", ReleaseReason)
def test_each_end_of_a_hold(
    browser: Client, user: User, sell: Callable[..., Offer], reason: str
) -> None:
    purchase = PurchaseFactory(offer=sell(), user=user, status=Status.RELEASED)
    Purchase.objects.update(release_reason=reason)
    assert "Noch einmal versuchen" in pages_of(browser, purchase)
    is_german(browser.get(f"/events/{purchase.event.slug}/offers"))
    Offer.objects.update(is_active=False)
    assert "Von hier aus lässt es sich nicht noch einmal versuchen." in pages_of(browser, purchase)


def test_list_of_purchases(browser: Client, user: User, sell: Callable[..., Offer]) -> None:
    is_german(browser.get("/purchases"), "Du hast noch nichts gekauft.", "Zu den Events")
    is_german(browser.get("/purchases?page=2"), "Mehr gibt es nicht.")
    PurchaseFactory.create_batch(21, offer=sell(inventory_total=None), user=user, status="paid")
    is_german(browser.get("/purchases"), "Ältere")
    is_german(browser.get("/purchases?page=2"), "Neuere")
    sold = Purchase.objects.first()
    assert sold is not None
    for action in ("cancel", "again"):
        answer = browser.post(f"/purchases/{sold.pk}/{action}")
        assert "nicht beendet" in (text := is_german(browser.get(answer.url))) or "lässt" in text


def test_every_delivery_that_waits_or_was_taken_back(
    browser: Client, user: User, sell: Callable[..., Offer]
) -> None:
    for offer_type in set(Offer.Type):
        for status in ("PENDING", "PROCESSING", "FULFILLED", "FAILED", "REVOKED"):
            offer = sell(offer_type=offer_type, placement="EMAIL")
            purchase = PurchaseFactory(offer=offer, user=user, status=Status.PAID)
            make_fulfillment(purchase, status=status)
            pages_of(browser, purchase)


def test_content_and_codes(browser: Client, user: User, sell: Callable[..., Offer]) -> None:
    offer = sell(offer_type="EXCLUSIVE_CONTENT", title="Aufnahmen")
    DigitalContentFactory(offer=offer, codes=3, instructions="Viel Spaß!")
    two = PurchaseFactory(offer=offer, user=user, quantity=2, status=Status.PAID)
    token = links.token_for(deliver_now(two.pk).pk)
    assert "Deine Zugangscodes" in pages_of(browser, two)
    browser.get(f"/content/{token}")
    assert "1-mal geöffnet" in pages_of(browser, two)
    is_german(browser.get("/content/x"), "nicht vollständig", status=404)
    with time_machine.travel(timezone.now() + timedelta(days=30)):
        is_german(Client().get(f"/content/{token}", headers=GERMAN), "abgelaufen", status=403)
    refund(two)
    is_german(browser.get(f"/content/{token}"), "rückerstattet", status=403)


def test_parcel(browser: Client, user: User, sell: Callable[..., Offer]) -> None:
    purchase = paid(user=user, offer=sell(), shipping_address=ADDRESS)
    order = placed(purchase)
    assert "DEUTSCHLAND" in pages_of(browser, purchase)
    ship(order, tracking_url="https://dhl.example/00340")
    assert "mit DHL unterwegs" in pages_of(browser, purchase)
    orders.mark_delivered(order.pk, now=timezone.now(), source="admin", actor=None)
    assert "DHL hat es spätestens am" in pages_of(browser, purchase)
    refund(purchase)
    pages_of(browser, purchase)


def test_pick_up(browser: Client, user: User, sell: Callable[..., Offer]) -> None:
    purchase = collected(user=user, offer=sell())
    order = placed(purchase)
    assert "Es wartet bei Hafentage auf dich" in pages_of(browser, purchase)
    orders.hand_over(order.pk, now=timezone.now(), source="page")
    assert "Es wurde am" in pages_of(browser, purchase)


def test_ticket(browser: Client, user: User, event: Event) -> None:
    tier, vip, lounge = (
        TicketTierFactory(event=event, title=title) for title in ("Parkett", "Loge", "Lounge")
    )
    registration = RegistrationFactory(event=event, user=user, ticket_tier=tier)
    first = upgrade(registration, vip, title="Logenplatz")
    bought = first.fulfillment.purchase
    assert "Lena Fischer, zeig diesen Code am Einlass vor." in pages_of(browser, bought)
    upgrade(registration, lounge, title="Loungeplatz")
    assert "Gültiges Ticket zeigen" in pages_of(browser, bought)
    move_by_hand(registration, tier)
    pages_of(browser, bought)


def test_booking(browser: Client, user: User, event: Event) -> None:
    service = Service(event=event, title="Beratung", max_per_user=None)
    ServiceDetails.objects.update(location="Raum 3", instructions="Bitte anklopfen.")
    for capacity in (1, 3):
        service.slot(hours=48 + capacity, capacity=capacity)
    late = service.slot(hours=30)
    purchase = service.sold(user=user)
    assert "noch 3 frei" in pages_of(browser, purchase)
    path = f"/purchases/{purchase.pk}/booking"
    for form, said in (
        ({}, "Wähle zuerst einen Termin."),
        ({"slot": "x"}, "Formular ist beschädigt"),
        ({"slot": str(uuid.uuid4())}, "Diesen Termin gibt es nicht"),
        ({"slot": str(late.pk)}, "Gebucht: "),
    ):
        is_german(browser.get(browser.post(path, form).url), said)
    assert "Auf diesen Termin verschieben" in pages_of(browser, purchase)
    with time_machine.travel(service.now + timedelta(hours=20)):
        browser.force_login(user)
        is_german(browser.get(browser.post(f"{path}/cancel").url), "ließ sich bis", "Ändern konnt")
    browser.force_login(user)
    is_german(browser.get(browser.post(f"{path}/cancel").url), "Abgesagt.")
    three = service.sold(3, user=user)
    assert "noch 3 frei" in pages_of(browser, three)
    many = service.sold(4, user=user)
    assert "kein Termin mehr für 4 Personen frei" in pages_of(browser, many)


def test_delivery_that_staff_took_back(
    browser: Client, user: User, sell: Callable[..., Offer]
) -> None:
    purchase = collected(user=user, offer=sell())
    placed(purchase)
    with transaction.atomic():
        fulfillment = fulfillment_transitions.lock(Fulfillment.objects.get().pk)
        fulfillment_transitions.apply(fulfillment, REVOKE, now=timezone.now(), source="tests")
    assert "Der Veranstalter hat das zurückgenommen" in pages_of(browser, purchase)


@pytest.mark.parametrize("occasion", Email.Occasion)
def test_each_letter(user: User, sell: Callable[..., Offer], occasion: str) -> None:
    for price in (Decimal(50), Decimal(0)):
        facts = {"offer": sell(price=price), "user": user, "language": "de", "quantity": 2}
        purchase = PurchaseFactory(status=Status.PAID, **facts)
        row = RefundFactory(purchase=purchase, amount=Decimal(1), settled_at=timezone.now())
        tell(purchase, occasion, reference=str(row.pk))
        is_german_letter(mail.message(Email.objects.latest("pk"), purchase))


# -- Accounts -------------------------------------------------------------------------------------


def test_login(stranger: Client, user: User) -> None:
    is_german(
        stranger.get("/login?next=/purchases"), "E-Mail-Adresse oder Benutzername", "Neu hier?"
    )
    is_german(stranger.post("/login", {}), "Dieses Feld ist zwingend erforderlich.")
    with time_machine.travel("2026-01-01T12:00:00Z", tick=False):
        wrong = {"username": user.username, "password": "falsch"}
        for _ in range(10):
            is_german(stranger.post("/login", wrong), "kein Konto mit diesem Passwort")
        is_german(stranger.post("/login", wrong), "Zu viele Versuche: Bitte warte", status=429)
    stranger.force_login(user)
    is_german(stranger.get("/login?next=/purchases"), "Du bist als lena angemeldet.")


@pytest.mark.django_db(transaction=True)
def test_registration(stranger: Client) -> None:
    is_german(stranger.get("/register"), "Konto anlegen")
    is_german(stranger.post("/register", {}), "Dieses Feld ist zwingend erforderlich.")
    is_german(stranger.post("/register", {"email": "x", "name": "\t"}), "keine E-Mail-Adresse")
    link = account_letters.register_link(stranger)
    is_german(stranger.get("/register/sent"), "anna@example.org", "24 Stunden")
    page = stranger.get(link).headers["Location"]
    is_german(stranger.get(page), "Wähle dein Passwort", "mindestens 8 Zeichen")
    for password, said in (
        ("kurz", "ist zu kurz"),
        ("12345678", "zu üblich"),
        ("anna@example.org", "zu ähnlich"),
        ("73519482", "komplett numerisch"),
    ):
        form = {"name": "Anna", "new_password1": password, "new_password2": password}
        is_german(stranger.post(page, form), said)
    form["new_password2"] = "anders"
    is_german(stranger.post(page, form), "beiden Passwörter")
    is_german(
        stranger.get(account_letters.choose(stranger, link).headers["Location"]), "Willkommen!"
    )
    is_german(Client(headers=GERMAN).get(link), "Dieser Link geht nicht", status=404)


@pytest.mark.django_db(transaction=True)
def test_letters_about_accounts(stranger: Client) -> None:
    UserFactory(username="berta", email="berta@example.org")
    UserFactory(username="carl", email="carl@example.org", is_active=False)
    UserFactory(username="dora@example.org", email="dora@new.example")
    for ask in (account_letters.ask_to_register, account_letters.ask_for_reset):
        for name in ("anna", "berta", "carl", "dora"):
            ask(stranger, f"{name}@example.org")
    account_letters.send()
    assert len(account_letters.outbox()) == 6  # none about the password of nobody
    for letter in account_letters.outbox():
        is_german_letter(letter)


@pytest.mark.django_db(transaction=True)
def test_forgotten_password(stranger: Client) -> None:
    user = UserFactory(username=account_letters.ADDRESS, email=account_letters.ADDRESS)
    is_german(stranger.get("/password/reset"), "Passwort vergessen?")
    is_german(stranger.get("/password/reset/x/y"), "Dieser Link geht nicht", status=404)
    link = account_letters.reset_link(stranger, user.email)
    is_german(stranger.get("/password/reset/sent"), "nur einmal")
    page = stranger.get(link).headers["Location"]
    is_german(stranger.get(page), "Wähle ein neues Passwort", "Benutzername")
    is_german(stranger.post(page, {"new_password1": "a", "new_password2": "b"}))
    done = account_letters.choose(stranger, link)
    is_german(stranger.get(done.headers["Location"]), "Dein neues Passwort ist gespeichert")


def test_changed_password(browser: Client) -> None:
    new = {"new_password1": account_letters.GOOD, "new_password2": account_letters.GOOD}
    is_german(browser.get("/password/change"), "Altes Passwort", "auf allen Geräten")
    is_german(browser.post("/password/change", new | {"old_password": "x"}), "alte Passwort")
    done = browser.post("/password/change", new | {"old_password": "secret"})
    is_german(browser.get(done.url), "Dein Passwort ist geändert.")


# -- Refusals of the site -------------------------------------------------------------------------


def test_nothing_there_not_allowed_and_too_old(browser: Client, stranger: Client, rf: Any) -> None:
    for who in (browser, stranger):
        is_german(who.get("/nirgends"), "Hier ist nichts für dich", "Zu den Events", status=404)
    is_german(browser.get(f"/purchases/{uuid.uuid4()}"), "Nicht gefunden", status=404)
    careful = Client(headers=GERMAN, enforce_csrf_checks=True)
    is_german(careful.post("/login", {}), "Dieses Formular ist zu alt", status=403)
    with translation.override("de"):
        request = browser.get("/").wsgi_request
        refused = defaults.permission_denied(request, PermissionError())
    is_german(refused, "Das darfst du nicht", status=403)
