from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from purchases import webhooks
from purchases.models import StripeEvent

FAILED = (StripeEvent.State.FAILED, StripeEvent.State.DEAD)


class Command(BaseCommand):
    help = "Process stored Stripe events again. Harmless for those that were processed before."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("ids", nargs="*", metavar="ID", help="Stripe's event ids (evt_…)")
        parser.add_argument("--failed", action="store_true", help="all that failed, dead ones too")
        parser.add_argument("--dry-run", action="store_true", help="only list them")

    def handle(self, *args: Any, ids: list[str], failed: bool, dry_run: bool, **_: Any) -> None:
        if not ids and not failed:
            raise CommandError("Name the events to replay, or say --failed.")
        events = StripeEvent.objects.order_by("created")
        if ids:
            events = events.filter(pk__in=ids)
            unknown = sorted(set(ids) - set(events.values_list("pk", flat=True)))
            if unknown:
                raise CommandError(f"Not stored here: {', '.join(unknown)}.")
        if failed:
            events = events.filter(state__in=FAILED)
        seen = still_failing = 0
        for event in events:
            if not dry_run:
                webhooks.replay(event, now=timezone.now())
                still_failing += event.state in FAILED
            self.stdout.write(f"{event.pk} {event.type}: {event.state}")
            seen += 1
        self.stdout.write(f"total: {seen} events")
        if still_failing:
            raise CommandError(f"{still_failing} events still fail: see their error in the admin.")
