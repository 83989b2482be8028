"""Letters about accounts: asked for on a page, sent by the worker.

Whether an address has an account is looked up by the worker only. So the page does the same, and
takes as long, for every address and with every mail server, and strangers learn nothing from it.

A letter is about no purchase, so it has a queue of its own, and a thread of its own: nobody who
forgot their password waits behind the confirmations of a sale. What a mail server's answers mean is
``purchases.mail``'s to know.
"""

import math
import threading
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.auth.tokens import default_token_generator
from django.db import transaction
from django.urls import reverse
from django.utils import timezone, translation
from django.utils.encoding import force_bytes
from django.utils.http import urlencode, urlsafe_base64_encode

from offers import row_queue
from offers.contention import drop_broken_connection
from offers.error_texts import in_words
from offers.wake import wake
from offers_project.accounts import registering
from offers_project.accounts.addresses import accounts_of
from offers_project.accounts.models import AccountLetter
from purchases import mail

logger = structlog.get_logger("accounts")

Kind = AccountLetter.Kind
# Somebody sits in front of a page and waits for it: after a day nobody does.
GIVEN_UP_AFTER = timedelta(days=1)

_sender = threading.Lock()


def ask_for(
    kind: str, address: str, *, site: str, language: str, next_page: str = "", name: str = ""
) -> None:
    """Have a letter sent to a ``normal`` address, whoever it belongs to; called by the pages."""
    now = timezone.now()
    with transaction.atomic():
        AccountLetter.objects.create(
            kind=kind,
            address=address,
            name=name,
            next=next_page,
            language=language,
            site=site,
            due_at=now,
            created_at=now,
        )
        transaction.on_commit(lambda: wake("accounts.send_letters"))


# -- Sending them ---------------------------------------------------------------------------------


def send_due(*, now: datetime, limit: int = 200, until: float = math.inf) -> int:
    """Send what is waiting, forget what is over; called by the sweep and its nudge.

    Outside any transaction. Returns how many letters the server took; none at once where another
    thread of this process is at it.
    """
    # The farewell comes after the release: what is stored while it takes finds nobody at it.
    with mail.Session() as session:
        if not _sender.acquire(blocking=False):
            return 0
        try:
            _forget(now)
            return _send_waiting(session, now, limit, until)
        finally:
            _sender.release()


def _forget(now: datetime) -> None:
    """Delete registrations that nobody can or did use: an address, a name, and no account."""
    longest = GIVEN_UP_AFTER + timedelta(seconds=settings.PASSWORD_RESET_TIMEOUT)
    AccountLetter.objects.filter(created_at__lt=now - longest).delete()


def _send_waiting(session: mail.Session, now: datetime, limit: int, until: float) -> int:
    sent = 0
    for _ in row_queue.in_time(range(limit), until):
        clock = timezone.now()
        waiting = AccountLetter.objects.filter(sent_at=None, due_at__lte=max(now, clock))
        claimed = row_queue.claim(
            waiting.order_by("due_at"), clock=clock, lease=mail.LEASE, limit=1
        )
        if not claimed:
            break
        letter = claimed[0]
        try:
            sent += _send(session, letter)
        except mail.Undelivered as error:
            _put_off(letter, error, now=now, for_good=error.is_final)
            if not error.is_about_this_message:
                break
        except Exception as error:  # noqa: BLE001 - put off, logged; the others get their turn
            drop_broken_connection()
            _put_off(letter, error, now=now)
    return sent


def _send(session: mail.Session, letter: AccountLetter) -> bool:
    """Hand one letter to the server, if there is one to send. Raises ``mail.Undelivered``."""
    content = _content(letter)
    if content is None:
        letter.delete()
        return False
    occasion, more = content
    with translation.override(letter.language):
        text = mail.compose(
            occasion,
            {"site": letter.site, **more},
            to=letter.address,
            number=letter.pk.hex,
        )
    session.hand_over(text, accepted=lambda: _settle(letter, is_needed=occasion == CONFIRM))
    logger.info("letter", kind=letter.kind, letter_id=str(letter.pk))
    return True


@mail.patient
def _settle(letter: AccountLetter, *, is_needed: bool) -> None:
    """It is sent: what nobody needs any more isn't kept."""
    drop_broken_connection()
    row = AccountLetter.objects.filter(pk=letter.pk)
    if is_needed:
        row.update(sent_at=timezone.now(), error="")
    else:
        row.delete()


def _put_off(
    letter: AccountLetter, error: Exception, *, now: datetime, for_good: bool = False
) -> None:
    given_up = for_good or now >= letter.created_at + GIVEN_UP_AFTER
    logger.error(
        "letter failed",
        kind=letter.kind,
        letter_id=str(letter.pk),
        attempts=letter.attempts,
        given_up=given_up,
        error=in_words(error),
        exc_info=error,
    )
    row = AccountLetter.objects.filter(pk=letter.pk, attempts=letter.attempts)
    if given_up:
        row.delete()
    else:
        row.update(
            error=in_words(error),
            due_at=timezone.now() + row_queue.delay(letter.attempts),
        )


# -- What they say --------------------------------------------------------------------------------

CONFIRM = "account_confirm"


def _content(letter: AccountLetter) -> tuple[str, dict[str, Any]] | None:
    """Which letter it becomes, by the accounts that there are now, and what its templates get.

    What a stranger typed is not in it, or anybody could have us say something to anybody.
    """
    found = accounts_of(letter.address)
    active = [user for user in found if user.is_active]
    if letter.kind == Kind.REGISTRATION:
        to_log_in = {"log_in": _page(letter, "login"), "reset": _page(letter, "password-reset")}
        if active:
            names = [user.username for user in active if user.username != letter.address]
            return "account_exists", {"names": names, **to_log_in}
        named = User.objects.filter(username=letter.address).first()
        if named and named.is_active:
            return "account_moved", to_log_in
        if found or named:
            return "account_closed", {}
        token = registering.token_for(letter)
        return CONFIRM, {"link": f"{letter.site}{reverse('register-link', args=[token])}"}
    # A password that somebody took away is not given back by a letter.
    changeable = [user for user in active if user.has_usable_password()]
    if changeable:
        links = [(user.username, _reset_link(letter, user)) for user in changeable]
        return "password_reset", {"links": links}
    if active:
        return "password_none", {}
    return ("account_closed", {}) if found else None


def _page(letter: AccountLetter, name: str) -> str:
    query = f"?{urlencode({'next': letter.next})}" if letter.next else ""
    return f"{letter.site}{reverse(name)}{query}"


def _reset_link(letter: AccountLetter, user: User) -> str:
    number = urlsafe_base64_encode(force_bytes(user.pk))
    token = default_token_generator.make_token(user)
    query = f"?{urlencode({'next': letter.next})}" if letter.next else ""
    return f"{letter.site}{reverse('password-reset-link', args=[number, token])}{query}"
