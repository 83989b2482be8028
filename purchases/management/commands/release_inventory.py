import uuid
from argparse import ArgumentTypeError
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from offers.models import Event, Offer
from purchases import holds
from purchases.models import Purchase
from purchases.states import ReleaseReason, Status


def minutes(text: str) -> timedelta:
    """An age on the command line."""
    try:
        age = timedelta(minutes=float(text))
    except (ValueError, OverflowError):
        age = timedelta(days=-1)
    if not timedelta(0) <= age <= timedelta(days=3650):
        raise ArgumentTypeError(f"{text!r} is no number of minutes.")
    return age


class Command(BaseCommand):
    help = (
        "End overdue holds the safe way: each one's Checkout Session is expired at Stripe first, "
        "and one that was paid meanwhile is recorded as paid."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--offer", type=uuid.UUID, metavar="ID", help="only of this offer")
        parser.add_argument("--event", metavar="SLUG", help="only of this event")
        parser.add_argument("--purchase", type=uuid.UUID, metavar="ID", help="only this one")
        parser.add_argument(
            "--older-than", type=minutes, metavar="MINUTES", help="only holds made before that"
        )
        parser.add_argument(
            "--all", action="store_true", dest="every", help="every unpaid hold, overdue or not"
        )
        parser.add_argument("--dry-run", action="store_true", help="only list them")

    def handle(self, *args: Any, **options: Any) -> None:
        now = timezone.now()
        wanted = holds.open_holds() if options["every"] else holds.overdue(now=now)
        for option, model, key, field in (
            ("offer", Offer, "pk", "offer"),
            ("event", Event, "slug", "event"),
            ("purchase", Purchase, "pk", "pk"),
        ):
            if options[option] is not None:
                found = model.objects.filter(**{key: options[option]}).first()
                if found is None:
                    raise CommandError(f"There is no {option} {options[option]}.")
                wanted = wanted.filter(**{field: found.pk})
        if options["older_than"] is not None:
            wanted = wanted.filter(created_at__lt=now - options["older_than"])
        if options["dry_run"]:
            for purchase in wanted.order_by("reserved_until"):
                self.stdout.write(f"{purchase.pk} {purchase}: {purchase.status}, would be ended")
            self.stdout.write(f"total: {wanted.count()} holds would be ended")
            return
        self._end(wanted, now, staff=options["every"])

    def _end(self, wanted: Any, now: Any, *, staff: bool) -> None:
        units = kept = paid = released = 0
        reason = ReleaseReason.STAFF if staff else ReleaseReason.EXPIRED
        how: Any = {"reason": reason, "now": now, "source": "command"}
        for outcome in holds.end_all(wanted, **how, at_once=settings.SWEEP_THREADS):
            purchase = outcome.purchase
            if outcome.error is not None:
                kept += 1
                said = f"still held: {outcome.error}"
            elif purchase.status == Status.RELEASED:
                released += 1
                units += purchase.quantity
                said = f"released ({purchase.release_reason})"
            else:
                paid += 1
                said = f"not released: it is {purchase.status}"
            self.stdout.write(f"{purchase.pk} {purchase}: {said}")
        self.stdout.write(
            f"total: {released} holds released ({units} units), {paid} paid after all, "
            f"{kept} still held"
        )
        if kept:
            raise CommandError(f"{kept} holds could not be ended: run it again later.")
