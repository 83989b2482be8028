from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import Q
from django.utils import timezone

from fulfillment import delivery, queue
from fulfillment.errors import FulfillmentAlreadyResolved
from fulfillment.models import Fulfillment
from fulfillment.states import Status


class Command(BaseCommand):
    help = "Deliver again what failed. Harmless for what was delivered: it is left as it is."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "ids", nargs="*", type=UUID, metavar="ID", help="of fulfilments or of purchases"
        )
        parser.add_argument("--failed", action="store_true", help="all that failed")
        parser.add_argument("--dry-run", action="store_true", help="only list them")

    def handle(
        self, *args: Any, ids: list[UUID], failed: bool, dry_run: bool, **options: Any
    ) -> None:
        if not ids and not failed:
            raise CommandError("Name the fulfilments to retry, or say --failed.")
        chosen = Fulfillment.objects.order_by("paid_at")
        if ids:
            chosen = chosen.filter(Q(pk__in=ids) | Q(purchase__in=ids))
            known = {key for row in chosen.values_list("pk", "purchase") for key in row}
            unknown = [str(key) for key in ids if key not in known]
            if unknown:
                raise CommandError(f"There is no fulfilment {', '.join(unknown)}.")
        if failed:
            chosen = chosen.filter(status=Status.FAILED)
        tried = [self._retry(row, dry_run=dry_run) for row in chosen]
        self.stdout.write(f"total: {len(tried)} fulfilments")
        if still_failing := sum(tried):
            raise CommandError(f"{still_failing} fulfilments still fail: see their error above.")

    def _retry(self, row: Fulfillment, *, dry_run: bool) -> bool:
        """Try one, print what became of it, and say whether it still fails."""
        if not dry_run:
            now = timezone.now()
            try:
                delivery.retry(row.pk, now=now, source="command")
                queue.deliver_one(row.purchase_id, now=now)
            except FulfillmentAlreadyResolved as resolved:
                self.stdout.write(f"{row.pk} {row.type}: {resolved}")
                return False
            row.refresh_from_db()
        self.stdout.write(f"{row.pk} {row.type}: {row.status} {row.error}".rstrip())
        return not dry_run and row.status in (Status.PENDING, Status.FAILED)
