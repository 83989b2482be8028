"""E-mails to buyers: stored with what they tell of, sent by the worker, once for each occasion.

A mail server that is away delays messages and nothing else. The text of an occasion is in
``templates/emails/<occasion>.txt``; its first line is the subject.
"""

from datetime import datetime, timedelta

from django.conf import settings
from django.core.mail import EmailMessage
from django.db import connection, transaction
from django.template.loader import render_to_string
from django.utils import timezone

from offers import row_queue
from offers.wake import wake
from purchases.activity import log_activity, log_failure
from purchases.models import Email, Purchase

# Longer than EMAIL_TIMEOUT lets a mail server take; after a crash a message may go out twice.
LEASE = timedelta(minutes=5)
ATTEMPTS = 10


def enqueue(purchase: Purchase, occasion: Email.Occasion, *, now: datetime) -> None:
    """Have the buyer told of ``occasion``; nothing happens if they are, or will be, already.

    Called inside the transaction that makes it true.
    """
    Email.objects.get_or_create(
        purchase=purchase, occasion=occasion, defaults={"due_at": now, "created_at": now}
    )
    transaction.on_commit(lambda: wake("purchases.send_emails"))


def send_due(*, now: datetime, limit: int = 200) -> int:
    """Send what is waiting; called by the sweep. Returns how many were handed to the server."""
    sent = 0
    for _ in range(limit):
        due = Email.objects.filter(state=Email.State.WAITING, due_at__lte=now)
        claimed = row_queue.claim(
            due.order_by("due_at"), clock=timezone.now(), lease=LEASE, limit=1
        )
        if not claimed:
            break
        sent += _send(claimed[0])
    return sent


def _send(email: Email) -> bool:
    purchase = Purchase.objects.select_related("user", "event").get(pk=email.purchase_id)
    try:
        if not purchase.user.email:
            raise ValueError("This buyer has no e-mail address.")
        text = message(email, purchase)
        connection.close()  # a mail server takes its time
        text.send()
    except Exception as error:  # noqa: BLE001 - logged; a bad address must not stop the others
        log_failure("email", purchase, error, occasion=email.occasion)
        email.error = f"{type(error).__name__}: {error}"
        email.due_at = timezone.now() + row_queue.delay(email.attempts)
        if email.attempts >= ATTEMPTS or not purchase.user.email:
            email.state = Email.State.GIVEN_UP
        email.save(update_fields=["error", "due_at", "state"])
        return False
    email.state, email.sent_at, email.error = Email.State.SENT, timezone.now(), ""
    email.save(update_fields=["state", "sent_at", "error"])
    log_activity("email", purchase, occasion=email.occasion)
    return True


def message(email: Email, purchase: Purchase) -> EmailMessage:
    """The message as it goes out. A second copy, after a crash, has the same ``Message-ID``."""
    text = render_to_string(
        f"emails/{email.occasion}.txt", {"purchase": purchase, "site": settings.FRONTEND_URL}
    )
    subject, _, body = text.strip().partition("\n")
    return EmailMessage(
        subject=subject,
        body=body.lstrip(),
        to=[purchase.user.email],
        headers={"Message-ID": f"<{email.pk}.{purchase.pk}@offers>"},
    )
