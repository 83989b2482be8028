"""E-mails that a mail server put off until they were no longer true: they tell nobody."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from fulfillment.bookings import reminders
from purchases import mail
from purchases.models import Email, Purchase
from tests.booked_services import Service, booking_of, refund_failed, refunding
from tests.factories import RegistrationFactory, TicketTierFactory
from tests.smtp_server import MailServer
from tests.ticket_upgrades import refund, upgrade

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def server(settings: Any) -> Iterator[MailServer]:
    """A mail server that works, and that the settings name."""
    server = MailServer()
    server.start()
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", server.port
    yield server
    server.stop()


class Postponed:
    """The mail server takes nothing for the buyer as long as this lasts."""

    def __init__(self, server: MailServer, purchase: Purchase) -> None:
        self._server, self._address = server, purchase.user.email

    def __enter__(self) -> None:
        self._server.at_data[self._address] = "451 Try again later"

    def __exit__(self, *raised: object) -> None:
        send()
        self._server.at_data.clear()


def send(*, later: float = 0) -> None:
    mail.send_due(now=timezone.now() + timedelta(minutes=later))


def arrived(server: MailServer) -> list[str]:
    """The first words of the subjects since the last time, after what was put off came too."""
    send()
    send(later=10)
    words = [subject.split()[0] for subject in server.subjects()]
    server.letters.clear()
    return words


def given_up(purchase: Purchase) -> dict[str, str]:
    rows = purchase.emails.filter(state=Email.State.GIVEN_UP)
    return dict(rows.values_list("occasion", "error"))


def test_reminder_does_not_come_after_the_cancellation(server: MailServer, caplog: Any) -> None:
    service = Service(deadline=0)
    purchase, slot = service.sold(), service.slot(hours=20)
    service.pick(purchase, slot, now=service.now - timedelta(hours=5))
    arrived(server)
    with Postponed(server, purchase):
        assert reminders.remind(now=service.now) == 1
    service.cancel(purchase)
    assert arrived(server) == ["Cancelled:"]
    assert "newest e-mail" in given_up(purchase)["service_reminder"]
    assert "email_overtaken" in caplog.text


def test_time_that_was_booked_first_does_not_come_after_the_one_that_holds(
    server: MailServer,
) -> None:
    service = Service()
    purchase, one, two = service.sold(), service.slot(hours=48), service.slot(hours=72)
    arrived(server)
    with Postponed(server, purchase):
        service.pick(purchase, one)
    service.pick(purchase, two)
    assert arrived(server) == ["Now"]
    assert "newest e-mail" in given_up(purchase)["booked"]


def test_cancellation_does_not_strike_the_time_that_was_booked_after_it(
    server: MailServer,
) -> None:
    service = Service()
    purchase, slot = service.sold(), service.slot()
    service.pick(purchase, slot)
    arrived(server)
    with Postponed(server, purchase):
        service.cancel(purchase)
    service.pick(purchase, slot)
    assert arrived(server) == ["Now"]
    assert "newest e-mail" in given_up(purchase)["booking_cancelled"]


def test_reminder_of_a_time_that_has_come_is_none(server: MailServer) -> None:
    service = Service()
    purchase, slot = service.sold(), service.slot(hours=20)
    service.pick(purchase, slot, now=service.now - timedelta(hours=5))
    arrived(server)
    reminders.remind(now=service.now)
    with time_machine.travel(slot.starts_at):
        assert arrived(server) == []
    assert "time had come" in given_up(purchase)["service_reminder"]


def test_letters_that_are_late_and_still_true_arrive(server: MailServer) -> None:
    service = Service()
    purchase, slot = service.sold(), service.slot(hours=20)
    with Postponed(server, purchase):
        pass
    assert sorted(arrived(server)) == ["Choose", "Confirmed:"]
    with Postponed(server, purchase):
        service.pick(purchase, slot, now=service.now - timedelta(hours=5))
        reminders.remind(now=service.now)
    assert "Reminder:" in arrived(server)
    assert given_up(purchase) == {}


@pytest.mark.parametrize("became", ["booked", "refunded"])
def test_nobody_is_asked_to_choose_a_time_when_there_is_none_to_choose(
    server: MailServer, became: str
) -> None:
    service = Service()
    slot, purchase = service.slot(), service.sold()
    if became == "booked":
        service.pick(purchase, slot)
    else:
        refund(purchase)
    assert "Choose" not in arrived(server)
    assert "no time to choose" in given_up(purchase)["booking_open"]


def test_refund_that_may_fail_keeps_nobody_from_being_asked(server: MailServer) -> None:
    service = Service()
    service.slot()
    purchase = service.sold()
    refunding(purchase, service.now)
    assert "Choose" in arrived(server)
    refund_failed(purchase, service.now)
    assert booking_of(purchase).fulfillment.status == "PROCESSING"


def test_late_letter_of_an_upgrade_says_which_ticket_counts(server: MailServer) -> None:
    registration = RegistrationFactory(user__email="a@example.com", event__title="Conf")
    vip, gold = (TicketTierFactory(event=registration.event, title=t) for t in ("VIP", "Gold"))
    first = upgrade(registration, vip).fulfillment.purchase
    with Postponed(server, first):
        pass
    upgrade(registration, gold)
    send()
    server.letters.clear()
    send(later=10)

    [late] = [letter for letter in server.letters if "ticket" in letter["Subject"]]
    assert late["Subject"] == "Your ticket for Conf is now Gold"
    for kind in ("plain", "html"):
        text = " ".join(late.get_body((kind,)).get_content().split())
        assert "your upgrade to VIP for Conf is done" in text
        assert "You have upgraded to Gold since, and that ticket is the one to show" in text
        assert "It replaces the ticket" not in text
