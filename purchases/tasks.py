"""Celery tasks: sweeps, which beat starts, and nudges, which make the same happen sooner.

Each is named, not imported, by whoever wakes it; each may run at any time, twice, or not at all.
"""

import time
from datetime import timedelta

import structlog
from celery import Task, shared_task
from django.conf import settings
from django.utils import timezone

from offers import row_queue
from purchases import holds, mail, reconciliation, refunds, stripe_catalog, webhooks
from purchases.activity import alert
from purchases.bulk import running
from purchases.errors import PaymentProviderUnavailable
from purchases.states import ReleaseReason, Status
from purchases.subscribers import deliveries

logger = structlog.get_logger(__name__)

# Holds that one sweep looks at: at Stripe's 25 requests/s in test mode, well under a minute.
BATCH = 500
# At Stripe's 100 objects a page, room for some 100,000 of a day.
RECONCILE_SECONDS = 600


@shared_task(name="purchases.end_overdue_holds")
def end_overdue_holds() -> int:
    """End holds whose time is up; `release_inventory` does the same. Returns how many ended."""
    now, until = timezone.now(), row_queue.end_of_sweep()
    due = holds.overdue(now=now).order_by("reserved_until")[:BATCH].values("pk")
    outcomes = holds.end_all(
        holds.open_holds().filter(pk__in=[row["pk"] for row in due]),
        reason=ReleaseReason.EXPIRED,
        now=now,
        source="sweep",
        until=until,
        at_once=settings.SWEEP_THREADS,
    )
    ended = sum(outcome.purchase.status == Status.RELEASED for outcome in outcomes)
    try:
        holds.settle_stray_sessions(now=now, until=until)
    except PaymentProviderUnavailable as error:
        logger.warning("stray sessions not settled", error=str(error))
    return ended


@shared_task(name="purchases.sync_offer")
def sync_offer(offer_id: str) -> bool:
    """Tell Stripe of one offer; while Stripe is away, that is left to the sweep."""
    try:
        return stripe_catalog.sync_offer(offer_id, now=timezone.now())
    except PaymentProviderUnavailable:
        return False


@shared_task(name="purchases.sync_offers")
def sync_offers() -> int:
    return stripe_catalog.sync_due_offers(now=timezone.now(), until=row_queue.end_of_sweep())


@shared_task(name="purchases.process_events")
def process_events() -> int:
    return webhooks.process_unprocessed(now=timezone.now(), until=row_queue.end_of_sweep())


@shared_task(name="purchases.send_refunds")
def send_refunds() -> int:
    return refunds.send_due(now=timezone.now(), until=row_queue.end_of_sweep())


@shared_task(name="purchases.send_emails")
def send_emails() -> int:
    return mail.send_due(now=timezone.now(), until=row_queue.end_of_sweep())


@shared_task(name="purchases.deliver_webhooks")
def deliver_webhooks() -> int:
    return deliveries.send_due(now=timezone.now())


@shared_task(name="purchases.run_bulk_jobs")
def run_bulk_jobs() -> int:
    return running.sweep(now=timezone.now())


@shared_task(name="purchases.reconcile", bind=True)
def reconcile(self: Task, hours: float = 25.0) -> int:
    """Apply what webhooks missed lately. Returns the number of findings; each is logged.

    Beat asks for half an hour often, which is quick, and for a day once an hour.
    """
    now = timezone.now()
    # In beat's own process, while there is no broker, the sweeps after it wait.
    is_in_beat = self.request.is_eager
    seconds = row_queue.SWEEP_SECONDS if is_in_beat else RECONCILE_SECONDS
    run = reconciliation.Run(
        since=now - timedelta(hours=hours),
        now=now,
        source="sweep",
        leave=reconciliation.IN_PROGRESS,
        is_thorough=hours >= 24,
        until=row_queue.end_of_sweep(seconds=seconds),
    )
    try:
        found = sum(1 for _ in reconciliation.reconcile(run))
    except PaymentProviderUnavailable as error:
        logger.warning("reconciliation put off", error=str(error))
        return 0
    if time.monotonic() >= run.until:
        logger.warning("reconciliation not finished in time", hours=hours)
    return found


@shared_task(name="purchases.check_inventory")
def check_inventory() -> int:
    """Compare counters with purchases; an alert for each difference, which is a defect of ours."""
    differences = list(reconciliation.counter_differences())
    for difference in differences:
        alert("inventory_differs", offer_id=str(difference.offer.pk), detail=str(difference))
    return len(differences)
