"""E-mails to buyers: stored with what they tell of, sent by the worker, once for each occasion.

A mail server that is away delays messages and nothing else.

An occasion is a pair of templates, so any app can add one. The first line of
``emails/<occasion>.txt`` is the subject (pass names that people chose through ``one_line`` there);
nothing in it is escaped. ``emails/<occasion>.html`` extends ``emails/base.html``. Both get
``purchase``, ``site`` (the address of the pages, maybe "") and ``reference``, the second one also
``subject``; the occasions in ``CONTEXT`` get more. What waited until it was no longer true
isn't sent (``OVERTAKEN``).

What "once" means: there is one row an occasion, one process at a time has it, and it is marked as
sent when the mail server has accepted the message, before anything else is done, be it the next
message or the end of the connection. Still, acceptance and mark are not one step: if the process
dies between them, or the server's "250" is lost on the way (RFC 1047), then the message goes out
again after the lease. Both copies have the same ``Message-ID``, by which most mail systems show a
person only one. Marking first would lose messages instead.
"""

import base64
import math
import re
import threading
import unicodedata
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parseaddr
from smtplib import SMTP, SMTPDataError, SMTPRecipientsRefused, SMTPSenderRefused
from typing import Any, Self

import stamina
from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.mail import EmailMultiAlternatives, get_connection
from django.core.validators import validate_email
from django.db import InterfaceError, OperationalError, connection, transaction
from django.template import Context, Engine
from django.template.loader import get_template, render_to_string
from django.utils import timezone, translation
from django.utils.text import wrap

from offers import row_queue
from offers.contention import drop_broken_connection
from offers.error_texts import in_words
from offers.models import Offer
from offers.prepared import Insert
from offers.wake import wake
from purchases import placements
from purchases.activity import log_activity, log_failure
from purchases.models import Email, Purchase, Refund

# Longer than EMAIL_TIMEOUT, which is for each step, lets a mail server take.
LEASE = timedelta(minutes=5)
# By then, row_queue.delay being an hour at most, it was tried for about four days, which is what
# RFC 5321 (4.5.4.1) asks of those who send mail.
ATTEMPTS = 100
# RFC 5322 (2.1.1) wants no longer lines of text; longer words, such as links, stay whole.
WIDTH = 78

_NEW = Insert(Email)
# Servers limit them, each in its own way. For one that takes fewer, see `Session`.
MESSAGES_A_SESSION = 20
# One thread of a process talks to the mail server. If that hangs, the worker's other threads are
# there for holds and refunds.
_sender = threading.Lock()


@dataclass(frozen=True)
class Attachment:
    """A file that goes with a message. One of a ``text/`` type is UTF-8, and says no charset.

    ``mimetype`` may have parameters, as ``text/calendar; method=REQUEST``. Raises ``ValueError``
    for a name or a type that can't be in a header.
    """

    name: str
    mimetype: str
    content: bytes

    def __post_init__(self) -> None:
        if not self.name or not self.name.isprintable() or "/" in self.name:
            raise ValueError(f"{self.name!r} is no name for an attachment.")
        if not re.fullmatch(r"[\w.+-]+/[\w.+-]+(; ?[\w-]+=[\w.-]+)*", self.mimetype, re.ASCII):
            raise ValueError(f"{self.mimetype!r} is no MIME type.")


@dataclass(frozen=True)
class Letter:
    """What ``enqueue`` needs to know of a message, for those who only say which one it is."""

    occasion: str
    attachments: Sequence[Attachment] = ()


def enqueue(
    purchase: Purchase,
    occasion: str,
    *,
    now: datetime,
    reference: str = "",
    attachments: Sequence[Attachment] = (),
    requested_by: User | None = None,
) -> None:
    """Have the buyer told of ``occasion``; nothing happens if they are, or will be, already.

    Called inside the transaction that makes it true. An occasion that can come more than once for
    a purchase needs a ``reference`` to each. Raises ``TemplateDoesNotExist`` for an occasion that
    has no templates.
    """
    for kind in ("txt", "html"):
        get_template(f"emails/{occasion}.{kind}")
    email = Email(
        purchase=purchase,
        occasion=occasion,
        reference=reference,
        attachments=[
            {
                "name": attachment.name,
                "mimetype": attachment.mimetype,
                "content": base64.b64encode(attachment.content).decode(),
            }
            for attachment in attachments
        ],
        due_at=now,
        created_at=now,
        requested_by=requested_by,
    )
    if _NEW.run_once(email):
        transaction.on_commit(
            lambda: wake("purchases.send_emails", together="purchases.send_emails")
        )


# -- Sending them ---------------------------------------------------------------------------------


class Undelivered(Exception):
    """What a mail server, or its silence, said: without the address, which belongs in no log."""

    def __init__(self, error: OSError, address: str) -> None:
        said = f"{type(error).__name__}: {error}"
        super().__init__(re.sub(re.escape(address), "…", said, flags=re.IGNORECASE))
        # Anything else concerns everybody: unreachable, silent, our login, our own address.
        self.is_about_this_message = isinstance(error, SMTPRecipientsRefused | SMTPDataError)
        # 5yz is final, and 4yz is not: https://www.rfc-editor.org/rfc/rfc5321#section-4.2.1
        self.is_final = isinstance(error, SMTPRecipientsRefused) and all(
            code >= 500 for code, _ in error.recipients.values()
        )


def send_due(*, now: datetime, limit: int = 5000, until: float = math.inf) -> int:
    """Send what is waiting; called by the sweep and its nudge, outside any transaction.

    Returns how many the server took: none at once where another thread of this process is at it,
    which also finds what comes meanwhile. It ends when the server would take nothing of anybody.
    """
    # The farewell comes after the release: what is stored while it takes finds nobody at it.
    with Session() as session:
        if not _sender.acquire(blocking=False):
            return 0
        try:
            return _send_waiting(session, now, limit, until)
        finally:
            _sender.release()


def _send_waiting(session: "Session", now: datetime, limit: int, until: float) -> int:
    sent = 0
    for _ in row_queue.in_time(range(limit), until):
        clock = timezone.now()
        waiting = Email.objects.filter(state=Email.State.WAITING, due_at__lte=max(now, clock))
        claimed = row_queue.claim(waiting.order_by("due_at"), clock=clock, lease=LEASE, limit=1)
        if not claimed:
            break
        email = claimed[0]
        purchase = Purchase.objects.select_related("user", "event__organization").get(
            pk=email.purchase_id
        )
        if not has_address(purchase.user):
            _note(email, state=Email.State.GIVEN_UP, error="This buyer has no e-mail address.")
            log_activity("email_without_address", purchase, occasion=email.occasion)
            continue
        try:
            if why := _overtaken(email, purchase):
                _note(email, state=Email.State.GIVEN_UP, error=why)
                log_activity("email_overtaken", purchase, occasion=email.occasion)
                continue
            _send(session, email, purchase)
        except Undelivered as error:
            _put_off(email, purchase, error, for_good=error.is_final)
            if not error.is_about_this_message:
                break
        except Exception as error:  # noqa: BLE001 - put off, logged; the others get their turn
            drop_broken_connection()
            _put_off(email, purchase, error)
        else:
            sent += 1
    return sent


def has_address(user: User) -> bool:
    """Whether there is anywhere to send a message to."""
    try:
        validate_email(user.email)
    except ValidationError:
        return False
    return True


def _overtaken(email: Email, purchase: Purchase) -> str:
    email.purchase = purchase
    why_not = OVERTAKEN.get(email.occasion)
    return why_not(email) if why_not else ""


def _send(session: "Session", email: Email, purchase: Purchase) -> None:
    """Hand one message to the server. Raises Undelivered, and whatever a template does."""
    session.hand_over(message(email, purchase), accepted=lambda: _mark_as_sent(email))
    log_activity("email", purchase, occasion=email.occasion)


class Session:
    """A session with the mail server: one message after another over the same connection.

    To connect, agree on TLS and log in takes longer than to hand a message over. Used by one sweep
    of a queue, as a context; the first message begins it.
    """

    def __init__(self) -> None:
        self._server: Any = None
        self._accepted = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._end()

    def hand_over(self, text: EmailMultiAlternatives, *, accepted: Callable[[], None]) -> None:
        """Give the server one message, and call ``accepted`` before anything else can fail.

        Called outside any transaction. Raises ``Undelivered``.
        """
        connection.close()  # a mail server takes its time
        try:
            self._give(text)
        except Exception as error:
            # Nobody knows which word the server is waiting for.
            self._end()
            if isinstance(error, OSError):  # those of smtplib too
                raise Undelivered(error, text.to[0]) from None
            raise
        self._accepted += 1
        accepted()

    def _give(self, text: EmailMultiAlternatives) -> None:
        if self._server is None or not self._goes_on():
            self._begin()
        try:
            self._server.send_messages([text])
        except SMTPSenderRefused:
            if not self._accepted:
                raise
            # It takes fewer a session than we thought, and has nothing of this message yet.
            self._begin()
            self._server.send_messages([text])

    def _begin(self) -> None:
        self._end()
        self._server = get_connection()
        # The backend then doesn't end the connection before it tells us.
        self._server.open()

    def _goes_on(self) -> bool:
        """Whether the connection is good for another message.

        The server may have ended it meanwhile, and a message that fails is put off for a while.
        """
        # Other backends have none; Django's for files would put all messages into one.
        smtp = getattr(self._server, "connection", None)
        if not isinstance(smtp, SMTP) or self._accepted >= MESSAGES_A_SESSION:
            return False
        try:
            code, _ = smtp.noop()
        except OSError:
            return False
        return bool(code == 250)

    def _end(self) -> None:
        server, self._server, self._accepted = self._server, None, 0
        if server is not None:
            with suppress(OSError):  # accepted is accepted, however the server says goodbye
                server.close()


# A restart of PostgreSQL at this very moment is worth waiting for, well within the lease.
patient = stamina.retry(
    on=(OperationalError, InterfaceError), attempts=None, timeout=30, wait_initial=0.1, wait_max=1
)


@patient
def _mark_as_sent(email: Email) -> None:
    drop_broken_connection()
    Email.objects.filter(pk=email.pk).update(
        state=Email.State.SENT, sent_at=timezone.now(), error=""
    )


def _put_off(email: Email, purchase: Purchase, error: Exception, *, for_good: bool = False) -> None:
    given_up = for_good or email.attempts >= ATTEMPTS
    log_failure("email", purchase, error, occasion=email.occasion, given_up=given_up or None)
    said = str(error) if isinstance(error, Undelivered) else in_words(error)
    _note(
        email,
        state=Email.State.GIVEN_UP if given_up else Email.State.WAITING,
        error=said,
        due_at=timezone.now() + row_queue.delay(email.attempts),
    )


def _note(email: Email, **news: Any) -> None:
    """Write down how it went, unless the row was lost to another process: then that one knows."""
    Email.objects.filter(pk=email.pk, state=Email.State.WAITING, attempts=email.attempts).update(
        **news
    )


# -- What they say --------------------------------------------------------------------------------


def _refund(email: Email) -> dict[str, Any]:
    return {"refund": Refund.objects.get(pk=email.reference, purchase_id=email.purchase_id)}


def _offers(email: Email) -> dict[str, Any]:
    """What goes with what was bought, chosen as the letter is written; links need an address."""
    if not settings.FRONTEND_URL:
        return {}
    placement = Offer.Placement.EMAIL
    return {"offers": placements.going_with(email.purchase, placement, now=timezone.now())}


# What the templates of an occasion get besides what all of them do.
CONTEXT: dict[str, Callable[[Email], dict[str, Any]]] = {
    Email.Occasion.CONFIRMED: _offers,
    Email.Occasion.REFUNDED: _refund,
}

# Asked right before an occasion's message is sent: why it is no longer true, for staff, or "". Only
# where the buyer is told by another message of what holds now, since this one then never goes out.
OVERTAKEN: dict[str, Callable[[Email], str]] = {}


def message(email: Email, purchase: Purchase) -> EmailMultiAlternatives:
    """The message as it goes out, in its buyer's language; a copy has the same ``Message-ID``."""
    with translation.override(purchase.language):
        return _in_active_language(email, purchase)


def _in_active_language(email: Email, purchase: Purchase) -> EmailMultiAlternatives:
    email.purchase = purchase  # with its buyer and event, for those below who ask for it
    return compose(
        email.occasion,
        {
            "purchase": purchase,
            "site": settings.FRONTEND_URL,
            "reference": email.reference,
            **CONTEXT.get(email.occasion, lambda _: {})(email),
        },
        to=purchase.user.email,
        number=f"{email.pk}.{purchase.pk}",
        attachments=[
            (attachment["name"], base64.b64decode(attachment["content"]), attachment["mimetype"])
            for attachment in email.attachments
        ],
    )


def compose(
    occasion: str,
    context: dict[str, Any],
    *,
    to: str,
    number: str,
    attachments: Sequence[tuple[str, bytes, str]] = (),
) -> EmailMultiAlternatives:
    """A message of the templates of ``occasion``, of which ``number`` is the only one."""
    template = Engine.get_default().get_template(f"emails/{occasion}.txt")
    text = template.render(Context(context, autoescape=False)).strip()
    subject, _, body = text.partition("\n")
    subject, body = one_line(subject), re.sub(r"\n{3,}", "\n\n", wrap(body.strip(), WIDTH))
    html = render_to_string(f"emails/{occasion}.html", {**context, "subject": subject})
    return EmailMultiAlternatives(
        subject=subject,
        body=f"{body}\n",
        to=[to],
        alternatives=[(html, "text/html")],
        attachments=list(attachments),
        headers={
            "Message-ID": f"<{number}@{_own_domain()}>",
            # So that no vacation notice answers it: https://www.rfc-editor.org/rfc/rfc3834
            "Auto-Submitted": "auto-generated",
        },
    )


def one_line(text: str) -> str:
    """``text`` without control characters and line breaks, as a header needs it."""
    return " ".join(
        "".join(" " if unicodedata.category(each) == "Cc" else each for each in text).split()
    )


def _own_domain() -> str:
    domain = parseaddr(settings.DEFAULT_FROM_EMAIL)[1].rpartition("@")[2]
    return domain if domain.isascii() and domain else "offers"
