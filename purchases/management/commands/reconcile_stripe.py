from argparse import ArgumentTypeError
from collections import Counter
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from purchases import reconciliation
from purchases.errors import PaymentProviderUnavailable

# Stripe keeps events for 30 days: https://docs.stripe.com/api/events
MOST_HOURS = 30 * 24


def hours(text: str) -> timedelta:
    """How far back, on the command line."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= MOST_HOURS:
        raise ArgumentTypeError(f"{text!r}: use a number of hours, at most {MOST_HOURS}.")
    return timedelta(hours=number)


class Command(BaseCommand):
    help = (
        "Find what webhooks missed (events, sessions, refunds, holds without a session) and apply "
        "it, as the webhooks would have. Harmless however often it runs."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--since", type=hours, default=timedelta(days=3), metavar="HOURS",
            help=f"how far back to look: 72 unless told, at most {MOST_HOURS}",
        )  # fmt: skip
        parser.add_argument("--dry-run", action="store_true", help="only say what differs")

    def handle(self, *args: Any, since: timedelta, dry_run: bool, **_: Any) -> None:
        now = timezone.now()
        run = reconciliation.Run(since=now - since, now=now, source="command", dry_run=dry_run)
        kinds: Counter[str] = Counter()
        unrepaired = 0
        try:
            for finding in reconciliation.reconcile(run):
                self.stdout.write(str(finding))
                kinds[finding.kind] += 1
                unrepaired += not finding.is_repaired
        except PaymentProviderUnavailable as error:
            raise CommandError(
                f"Stripe can't be asked just now, so this is not complete: {error}"
            ) from error
        listed = ", ".join(f"{count} x {kind}" for kind, count in sorted(kinds.items()))
        self.stdout.write(f"total: {kinds.total()} findings{': ' if listed else ''}{listed}")
        if unrepaired:
            raise CommandError(f"{unrepaired} findings need a person: see above.")
