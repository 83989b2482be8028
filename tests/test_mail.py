"""E-mails on their way: through a real mail server, one for each occasion, whatever goes wrong."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django.template import TemplateDoesNotExist
from django.utils import timezone

from offers import row_queue
from purchases import mail, refunds
from purchases.models import Email, Purchase, Refund
from purchases.states import Status
from tests.conftest import at_once
from tests.factories import OfferFactory, PurchaseFactory, RefundFactory, UserFactory
from tests.refused_rows import SECRETS, refuse_row
from tests.service_processes import own_database_url
from tests.smtp_server import MailServer, hang
from tests.test_refunds import Sale

pytestmark = pytest.mark.django_db(transaction=True)

ROOT = Path(__file__).resolve().parent.parent
CONFIRMED = Email.Occasion.CONFIRMED
SEND = (
    "from django.utils import timezone; from purchases import mail; "
    "print('sent', mail.send_due(now=timezone.now()))"
)


@pytest.fixture
def server(settings: Any) -> Iterator[MailServer]:
    """A mail server that works, and that the settings name."""
    server = MailServer()
    server.start()
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", server.port
    yield server
    server.stop()


def bought(address: str = "buyer@example.com", **offer: Any) -> Purchase:
    """A purchase that is paid, and of which nobody was told."""
    return PurchaseFactory(
        user=UserFactory(email=address), offer=OfferFactory(**offer), status=Status.PAID
    )


def tell(purchase: Purchase, occasion: str = CONFIRMED, **more: Any) -> None:
    with transaction.atomic():
        mail.enqueue(purchase, occasion, now=timezone.now(), **more)


def send(*, later: float = 0) -> int:
    """What the sweep does; ``later`` in minutes."""
    return mail.send_due(now=timezone.now() + timedelta(minutes=later))


def states() -> dict[str, str]:
    rows = Email.objects.select_related("purchase__user")
    return {row.purchase.user.email: row.state for row in rows}


def part(letter: Any, kind: str) -> str:
    body = letter.get_body((kind,))
    assert body is not None
    return str(body.get_content())


def logged_by_us(caplog: Any) -> str:
    """With tracebacks, and without what aiosmtpd logs."""
    ours = (record for record in caplog.records if record.name == "purchases")
    return "\n".join(map(caplog.handler.format, ours))


def sender_process(server: MailServer) -> subprocess.Popen[str]:
    """Another worker: a process of its own that sends what is due, and says how much."""
    return subprocess.Popen(
        [sys.executable, "manage.py", "shell", "--no-imports", "-c", SEND],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": own_database_url(), "EMAIL_URL": server.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# -- What arrives ---------------------------------------------------------------------------------


def test_text_html_and_attachments_arrive_as_they_were_given(server: MailServer) -> None:
    purchase = bought(title="Größe <M> & mehr")
    invitation = b"BEGIN:VCALENDAR\r\nSUMMARY:Caf\xc3\xa9\r\nEND:VCALENDAR\r\n"
    picture = bytes(range(256))
    tell(
        purchase,
        attachments=[
            mail.Attachment("visit.ics", "text/calendar; method=REQUEST", invitation),
            mail.Attachment("café 1.png", "image/png", picture),
        ],
    )
    assert send() == 1
    [letter] = server.letters
    assert server.recipients == ["buyer@example.com"]
    assert letter["Subject"] == "Confirmed: 1 × Größe <M> & mehr"
    assert letter["Auto-Submitted"] == "auto-generated"
    assert letter["Message-ID"].endswith(f".{purchase.pk}@localhost>")
    assert letter.get_content_type() == "multipart/mixed"
    assert "Größe <M> & mehr" in part(letter, "plain")
    assert "Größe &lt;M&gt; &amp; mehr" in part(letter, "html")
    calendar, image = letter.iter_attachments()
    assert calendar.get_content_type() == "text/calendar"
    assert calendar["Content-Type"].params == {"method": "REQUEST", "charset": "utf-8"}
    assert calendar.get_payload(decode=True) == invitation
    assert (image.get_filename(), image.get_content()) == ("café 1.png", picture)


@pytest.mark.parametrize(
    ("name", "mimetype"),
    [
        ("", "text/plain"),
        ("a\nBcc: x@example.com", "text/plain"),
        ("../a", "text/plain"),
        ("a.txt", "text"),
        ("a.txt", "text/plain\nBcc: x@example.com"),
    ],
)
def test_attachment_that_fits_in_no_header_is_refused(name: str, mimetype: str) -> None:
    with pytest.raises(ValueError, match="is no"):
        mail.Attachment(name, mimetype, b"")


def test_names_with_line_breaks_add_no_header_and_stop_no_message(server: MailServer) -> None:
    evil = "Hoodie\r\nBcc: evil@example.com\r\n\r\n<script>\x0b\u2028\x07"
    purchase = bought(title=evil)
    purchase.event.title = purchase.event.organization.name = evil
    purchase.event.organization.save()
    purchase.event.save()
    purchase.user.first_name = evil
    purchase.user.save()
    tell(purchase)
    tell(purchase, Email.Occasion.LATE_PAYMENT)
    tell(purchase, Email.Occasion.REFUNDED, reference=str(RefundFactory(purchase=purchase).pk))
    assert send() == 3
    one_line = "Hoodie Bcc: evil@example.com <script>"
    assert server.subjects() == [
        f"Confirmed: 1 × {one_line}",
        f"Your payment for {one_line} is on its way back",
        f"Refunded: $50.00 for {one_line}",
    ]
    assert set(server.recipients) == {"buyer@example.com"}
    for letter in server.letters:
        assert set(letter) == {
            "Content-Type", "MIME-Version", "Subject", "From", "To", "Date", "Message-ID",
            "Auto-Submitted",
        }  # fmt: skip
        assert "<script>" not in part(letter, "html")


def test_subject_of_a_careless_template_is_one_line_too(
    server: MailServer, settings: Any, tmp_path: Path
) -> None:
    (tmp_path / "emails").mkdir()
    (tmp_path / "emails" / "careless.txt").write_text("New: {{ purchase.offer_title }}\n\nText")
    (tmp_path / "emails" / "careless.html").write_text("{{ subject }}")
    [engine] = settings.TEMPLATES
    settings.TEMPLATES = [{**engine, "DIRS": [tmp_path]}]
    tell(bought(title="Hoodie\rBcc: evil@example.com\nX-Evil: 1"), "careless")
    assert send() == 1
    assert server.subjects() == ["New: Hoodie Bcc: evil@example.com"]
    assert "X-Evil" not in server.letters[0]


def test_occasion_without_templates_fails_at_once_and_not_in_the_worker() -> None:
    purchase = bought()
    for occasion in ("unheard_of", "base", "../admin/login"):
        with pytest.raises(TemplateDoesNotExist):
            tell(purchase, occasion)
    assert not Email.objects.exists()


def test_same_occasion_again_is_the_same_message_and_another_reference_is_not(
    server: MailServer,
) -> None:
    purchase = bought()
    rows = [RefundFactory(purchase=purchase, amount=Decimal(n)) for n in (1, 2)]
    for reference in (rows[0].pk, rows[0].pk, rows[1].pk):
        tell(purchase, Email.Occasion.REFUNDED, reference=str(reference))
    at_once([lambda: tell(purchase)] * 4)
    assert send() == 3
    at_once([lambda: tell(purchase)] * 2)
    assert send() == 0
    assert len({letter["Message-ID"] for letter in server.letters}) == 3


# -- What goes wrong ------------------------------------------------------------------------------


def test_message_that_is_refused_for_now_is_tried_again_and_delays_no_other(
    server: MailServer,
) -> None:
    for address in ("busy@example.com", "full@example.com", "fine@example.com"):
        tell(bought(address))
    server.at_data["busy@example.com"] = "451 Try again later"
    server.at_rcpt["full@example.com"] = "452 Mailbox full"
    assert send() == 1
    assert server.recipients == ["fine@example.com"]
    assert send() == 0  # not before its time
    server.at_data.clear()
    server.at_rcpt.clear()
    assert send(later=1) == 2
    assert set(states().values()) == {Email.State.SENT}
    assert set(Email.objects.values_list("error", flat=True)) == {""}


def test_address_that_is_refused_for_good_is_given_up_and_no_other(
    server: MailServer, caplog: Any
) -> None:
    for address in ("Gone@example.com", "fine@example.com"):
        tell(bought(address))
    server.at_rcpt["Gone@example.com"] = "550 5.1.1 <gone@example.com>: no such user"
    assert send() == 1
    assert states() == {
        "Gone@example.com": Email.State.GIVEN_UP,
        "fine@example.com": Email.State.SENT,
    }
    assert "550" in Email.objects.get(state=Email.State.GIVEN_UP).error
    assert send(later=60 * 24) == 0
    logged = logged_by_us(caplog)
    assert "no such user" in logged
    assert "gone@" not in logged.lower()


def test_message_is_given_up_after_about_four_days(server: MailServer) -> None:
    tell(bought())
    server.at_data["buyer@example.com"] = "554 Spam"
    tried = sum((row_queue.delay(n) for n in range(1, mail.ATTEMPTS)), timedelta())
    assert timedelta(days=3) < tried < timedelta(days=5)
    Email.objects.update(attempts=mail.ATTEMPTS - 2)
    assert send() == 0
    assert states() == {"buyer@example.com": Email.State.WAITING}
    assert send(later=120) == 0
    assert states() == {"buyer@example.com": Email.State.GIVEN_UP}


@pytest.mark.parametrize("address", ["", "no address", "a@b.example\nBcc: c@d.example"])
def test_buyer_without_an_address_is_given_up_quietly(
    server: MailServer, caplog: Any, address: str
) -> None:
    tell(bought(address))
    tell(bought())
    assert send() == 1
    assert states()[address] == Email.State.GIVEN_UP
    assert "email_without_address" in caplog.text
    assert not [line for line in caplog.records if line.levelname == "ERROR"]


def test_template_that_fails_delays_its_own_message_only(
    server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    purchase = bought()
    tell(purchase, Email.Occasion.REFUNDED, reference="00000000-0000-4000-8000-000000000000")
    tell(bought("fine@example.com"))
    assert send() == 1
    assert server.recipients == ["fine@example.com"]
    assert "DoesNotExist" in Email.objects.get(purchase=purchase).error


def test_message_tells_nothing_of_a_row_that_was_refused(
    server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(bought())
    monkeypatch.setattr(mail, "compose", refuse_row)
    assert send() == 0
    told = Email.objects.get().error
    assert told.startswith("IntegrityError: null value in column")
    assert [secret for secret in SECRETS if secret in told] == []


def test_server_that_hangs_costs_a_sweep_one_time_out_and_one_thread(
    server: MailServer, settings: Any
) -> None:
    patience, settings.EMAIL_TIMEOUT = settings.EMAIL_TIMEOUT, 3
    server.before = hang
    for number in range(5):
        tell(bought(f"buyer{number}@example.com"))
    assert at_once([send] * 4) == [0, 0, 0, 0]
    assert server.connections == 1
    assert sorted(Email.objects.values_list("attempts", flat=True)) == [0, 0, 0, 0, 1]
    server.before = None
    settings.EMAIL_TIMEOUT = patience
    assert send(later=1) == 5


def test_server_that_hangs_up_delays_and_the_copy_has_the_same_message_id(
    server: MailServer,
) -> None:
    tell(bought())
    server.is_dropping = True
    assert send() == 0
    server.is_dropping = False
    assert send(later=1) == 1
    first, second = server.letters
    assert first["Message-ID"] == second["Message-ID"]
    assert part(first, "plain") == part(second, "plain")


def test_messages_of_a_sweep_share_connections_of_twenty_each(server: MailServer) -> None:
    for number in range(25):
        tell(bought(f"buyer{number}@example.com"))
    assert send() == len(server.letters) == 25
    assert server.connections == 2


@pytest.mark.parametrize("answer", ["421 4.7.0 Enough for now", ""], ids=["421", "gone"])
def test_server_that_ends_a_session_between_messages_delays_none(
    server: MailServer, answer: str
) -> None:
    server.noop = answer
    for number in range(3):
        tell(bought(f"buyer{number}@example.com"))
    assert send() == server.connections == 3
    assert set(Email.objects.values_list("attempts", flat=True)) == {1}


def test_server_that_takes_few_messages_a_session_delays_none(server: MailServer) -> None:
    server.most = 2
    for number in range(5):
        tell(bought(f"buyer{number}@example.com"))
    assert send() == len(server.letters) == 5
    assert server.connections == 3
    assert set(Email.objects.values_list("attempts", flat=True)) == {1}


def test_server_that_takes_nothing_of_ours_ends_the_sweep(server: MailServer) -> None:
    server.most = 0
    for number in range(3):
        tell(bought(f"buyer{number}@example.com"))
    assert send() == 0
    assert server.connections == 1


def test_message_that_comes_during_the_farewell_is_sent_by_whoever_it_wakes(
    server: MailServer,
) -> None:
    farewell, goes_on = threading.Event(), threading.Event()

    async def wait() -> None:
        server.at_quit = None
        farewell.set()
        await asyncio.to_thread(goes_on.wait, 30)

    server.at_quit = wait
    tell(bought("first@example.com"))
    sweep = threading.Thread(target=lambda: at_once([send]))
    sweep.start()
    assert farewell.wait(30)
    tell(bought("second@example.com"))
    assert send() == 1
    goes_on.set()
    sweep.join()
    assert server.recipients == ["first@example.com", "second@example.com"]


def test_each_new_message_wakes_the_worker_and_those_of_a_rush_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    woken: list[Any] = []
    monkeypatch.setattr(mail, "wake", lambda name, together: woken.append((name, together)))
    purchase = bought()
    for _ in range(2):
        tell(purchase)
    assert woken == [("purchases.send_emails", "purchases.send_emails")]


def test_messages_of_a_sweep_that_go_to_files_are_a_file_each(
    settings: Any, tmp_path: Path
) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.filebased.EmailBackend"
    settings.EMAIL_FILE_PATH = tmp_path
    for number in range(3):
        tell(bought(f"buyer{number}@example.com"))
    assert send() == len(list(tmp_path.iterdir())) == 3


def test_message_after_a_refused_one_comes_over_a_connection_of_its_own(
    server: MailServer,
) -> None:
    server.at_data["buyer0@example.com"] = "451 4.7.1 Come back later"
    for number in range(3):
        tell(bought(f"buyer{number}@example.com"))
    assert send() == server.connections == 2
    assert sorted(server.recipients) == ["buyer1@example.com", "buyer2@example.com"]


def test_server_that_hangs_after_it_accepted_gets_no_second_copy(
    server: MailServer, settings: Any
) -> None:
    settings.EMAIL_TIMEOUT = 3
    server.at_quit = hang
    tell(bought())
    assert send() == 1
    assert send(later=60) == 0
    assert len(server.letters) == 1


def test_database_that_is_away_for_a_moment_after_acceptance_causes_no_second_copy(
    server: MailServer,
) -> None:
    tell(bought())
    refused = iter([True, True])

    def lose_the_mark(execute: Any, sql: str, *args: Any) -> Any:
        if server.letters and "sent_at" in sql and next(refused, None):
            raise OperationalError("the connection is lost")
        return execute(sql, *args)

    with connection.execute_wrapper(lose_the_mark):
        assert send() == 1
    assert next(refused, None) is None
    assert states() == {"buyer@example.com": Email.State.SENT}


# -- More than one process ------------------------------------------------------------------------


def test_two_workers_at_once_send_each_message_once(server: MailServer) -> None:
    for number in range(30):
        tell(bought(f"buyer{number}@example.com"))
    both_are_here = asyncio.Barrier(2)
    arrivals = iter(range(2))

    async def wait_for_the_other() -> None:
        if next(arrivals, None) is not None:
            await both_are_here.wait()

    server.before = wait_for_the_other
    workers = [sender_process(server) for _ in range(2)]
    said = [worker.communicate(timeout=60) for worker in workers]
    counts = [int(out.split("sent ")[1]) for out, _ in said]
    assert sum(counts) == 30, said
    assert min(counts) > 0
    assert len({letter["Message-ID"] for letter in server.letters}) == len(server.letters) == 30


@pytest.mark.parametrize(("moment", "copies"), [("after", 2), ("at_quit", 1)])
def test_worker_killed_after_acceptance_sends_the_same_message_or_none(
    server: MailServer, moment: str, copies: int
) -> None:
    """The window is from the server's acceptance to our mark; at its goodbye it is over."""
    tell(bought())
    worker: subprocess.Popen[str]
    started = threading.Event()

    async def kill() -> None:
        started.wait(10)
        os.kill(worker.pid, signal.SIGKILL)

    setattr(server, moment, kill)
    worker = sender_process(server)
    started.set()
    worker.communicate(timeout=60)
    assert worker.returncode == -signal.SIGKILL
    setattr(server, moment, None)
    assert send() == 0  # the dead one's lease
    assert send(later=6) == copies - 1
    assert len(server.letters) == copies
    assert len({letter["Message-ID"] for letter in server.letters}) == 1
    assert states() == {"buyer@example.com": Email.State.SENT}


def test_failure_of_a_worker_that_lost_its_row_changes_nothing(server: MailServer) -> None:
    tell(bought())
    stale = row_queue.claim(Email.objects.all(), clock=timezone.now(), lease=timedelta(0), limit=1)[
        0
    ]
    assert send() == 1
    mail._put_off(stale, stale.purchase, ValueError("too late"))
    assert states() == {"buyer@example.com": Email.State.SENT}


# -- Refunds --------------------------------------------------------------------------------------


def test_each_refund_that_stripe_confirms_is_told_once(
    sandbox: Any, client_of: Any, server: MailServer
) -> None:
    sale = Sale(sandbox, client_of)
    for amount in ("10.00", "20.50", None):
        sale.ask(key=f"refund {amount}", **({"amount": amount} if amount else {}))
        refunds.send_due(now=timezone.now())
    sandbox.deliver()
    sandbox.delivered.clear()
    sandbox.deliver()
    assert sale.purchase.status == Status.REFUNDED
    send()
    title = sale.offer.title
    told = [each for each in server.letters if "Refunded" in str(each["Subject"])]
    assert [str(each["Subject"]).strip() for each in told] == [
        f"Refunded: ${amount} for {title}" for amount in ("10.00", "20.50", "69.50")
    ]
    assert "$10.00 of the $100.00" in " ".join(part(told[0], "plain").split())


def test_refund_that_fails_after_all_was_told_once_and_the_next_one_is_told_again(
    sandbox: Any, client_of: Any, server: MailServer
) -> None:
    sale = Sale(sandbox, client_of)
    sale.ask(key="first")
    refunds.send_due(now=timezone.now())
    sandbox.deliver()
    sandbox.process.control(f"refunds/{Refund.objects.get().stripe_refund_id}/fail")
    sandbox.deliver()
    sale.ask(key="second")
    refunds.send_due(now=timezone.now())
    sandbox.deliver()
    send()
    assert [subject for subject in server.subjects() if "Refunded" in subject] == [
        f"Refunded: $100.00 for {sale.offer.title}"
    ] * 2


def test_refund_that_is_not_confirmed_is_not_told(
    sandbox: Any, client_of: Any, server: MailServer
) -> None:
    sale = Sale(sandbox, client_of)
    sale.ask()
    send()
    assert not Email.objects.filter(occasion=Email.Occasion.REFUNDED).exists()


# -- What they say --------------------------------------------------------------------------------


def said(occasion: str, purchase: Purchase) -> tuple[str, str, str]:
    """Subject, text without line breaks, and HTML."""
    reference = ""
    if occasion == Email.Occasion.REFUNDED:
        amount = purchase.total_price or Decimal(1)
        row = RefundFactory(purchase=purchase, amount=amount, settled_at=timezone.now())
        reference = str(row.pk)
    tell(purchase, occasion, reference=reference)
    message = mail.message(Email.objects.get(), purchase)
    [(html, kind)] = message.alternatives
    assert kind == "text/html"
    assert isinstance(html, str)
    return str(message.subject), " ".join(str(message.body).split()), html.replace("\xa0", " ")


@pytest.mark.parametrize(
    ("price", "currency", "shown"),
    [("50", "USD", "$100.00"), ("500", "JPY", "¥1,000"), ("1.25", "KWD", "KWD2.500"),
     ("0", "EUR", "€0.00")],
)  # fmt: skip
@pytest.mark.parametrize("occasion", Email.Occasion)
def test_every_mail_reads_well_whatever_was_bought(
    settings: Any, occasion: str, price: str, currency: str, shown: str
) -> None:
    settings.FRONTEND_URL = "https://shop.example.com"
    offer = OfferFactory(price=Decimal(price), currency=currency, title="Fish & <b>chips</b>")
    purchase = PurchaseFactory(offer=offer, quantity=2, status=Status.PAID)
    subject, text, html = said(occasion, purchase)
    assert subject.count("Fish & <b>chips</b>") == 1
    if offer.price or occasion == CONFIRMED:
        assert shown in text
        assert shown in html
    assert f"Hello {purchase.user.username}," in text
    assert "Fish &amp; &lt;b&gt;chips&lt;/b&gt;" in html
    assert "<b>" not in html
    assert "&amp;amp;" not in html
    assert purchase.event.organization.name in html
    for version in (text, html):
        assert "https://shop.example.com/purchases" in version
        assert "None" not in version
        assert "{" not in version
    # Nothing from elsewhere, nothing that runs, and no colour that dark mode can make unreadable.
    for unwanted in ("<img", "<script", "<link", "url(", "background-color:#fff", "color:#000"):
        assert unwanted not in html


def test_confirmation_is_a_receipt() -> None:
    offer = OfferFactory(title="Hoodie")
    purchase = PurchaseFactory(
        offer=offer, quantity=2, status=Status.PAID, user=UserFactory(first_name="Ana")
    )
    Purchase.objects.filter(pk=purchase.pk).update(paid_at="2026-06-03T10:12:30Z")
    purchase.refresh_from_db()
    subject, text, html = said(CONFIRMED, purchase)
    assert subject == "Confirmed: 2 × Hoodie"
    for fact in (
        "Hello Ana,", "Hoodie", purchase.event.title, purchase.event.organization.name,
        "$50.00", "$100.00", "June 3, 2026, 10:12 a.m. UTC", str(purchase.pk),
    ):  # fmt: skip
        assert fact in text
        assert fact in html
    assert "Quantity: 2 Unit price: $50.00 Total: $100.00" in text
    assert "free" not in text


def test_confirmation_of_what_is_free_says_so(settings: Any) -> None:
    settings.FRONTEND_URL = ""
    _, text, html = said(CONFIRMED, bought(price=0))
    for version in (text, html):
        assert "It is free, so there is nothing to pay." in version
        assert "$0.00 (free)" in version
        assert "payment has arrived" not in version
        assert "/purchases" not in version


def test_refund_of_a_second_payment_says_that_it_is_one() -> None:
    purchase = bought()
    row = RefundFactory(purchase=purchase, cause=Refund.Cause.SECOND_PAYMENT)
    tell(purchase, Email.Occasion.REFUNDED, reference=str(row.pk))
    message = mail.message(Email.objects.get(), purchase)
    assert "you paid twice for the same purchase" in str(message.body)


def test_lines_of_text_are_short_and_links_stay_whole(settings: Any) -> None:
    settings.FRONTEND_URL = f"https://shop.example.com/{'x' * 90}"
    purchase = bought(title="word " * 39)
    tell(purchase)
    body = str(mail.message(Email.objects.get(), purchase).body)
    assert f"{settings.FRONTEND_URL}/purchases" in body
    assert all(len(line) <= 78 or " " not in line for line in body.splitlines())
    assert "\n\n\n" not in body
