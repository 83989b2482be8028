from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from offers.errors import TotalBelowCommitted
from purchases import reconciliation
from purchases.activity import alert


class Command(BaseCommand):
    help = "Compare each offer's counters with its purchases; exit code 1 on a difference."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--repair", action="store_true", help="set the counters to what the purchases add up to"
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="with --repair: only say what would be set"
        )

    def handle(self, *args: Any, repair: bool, dry_run: bool, **_: Any) -> None:
        left = 0
        for difference in reconciliation.counter_differences():
            self.stdout.write(str(difference))
            alert("inventory_differs", offer_id=str(difference.offer.pk), detail=str(difference))
            left += not (repair and not dry_run and self._repair(difference))
        if left:
            hint = "" if repair else " Run it with --repair to set the counters."
            raise CommandError(f"{left} offers differ from their purchases.{hint}")
        self.stdout.write("Every offer's counters equal its purchases.")

    def _repair(self, difference: reconciliation.Difference) -> bool:
        try:
            repaired = reconciliation.repair(difference)
        except TotalBelowCommitted:
            promised = difference.reserved + difference.sold
            self.stdout.write(
                f"  not repaired: {promised} units are promised, and there are "
                f"{difference.offer.inventory_total}. Raise the offer's total to {promised}, or "
                "refund, and repair again."
            )
            return False
        self.stdout.write(f"  repaired: reserved {repaired.reserved}, sold {repaired.sold}")
        return True
