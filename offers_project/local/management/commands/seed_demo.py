from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from offers_project.local import demo_data

MOST = 1_000_000


class Command(BaseCommand):
    help = "Load the demo data; what is there already is left alone. Local runs only."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--offers", type=int, default=0, help="and so many more offers")
        parser.add_argument("--purchases", type=int, default=0, help="and so many paid purchases")
        parser.add_argument("--dry-run", action="store_true", help="only say what would be made")

    def handle(
        self, *args: Any, offers: int, purchases: int, dry_run: bool, **options: Any
    ) -> None:
        if not (0 <= offers <= MOST and 0 <= purchases <= MOST):
            raise CommandError(f"Ask for 0 to {MOST:,} offers and purchases.")
        if dry_run:
            self.stdout.write(f"The demo data, {offers:,} offers and {purchases:,} purchases.")
            return
        now = timezone.now()
        made = demo_data.create_demo(now=now)
        self.stdout.write(
            "Demo data loaded." if made else "There are users already: no demo data loaded."
        )
        for progress in demo_data.create_many(offers=offers, purchases=purchases, now=now):
            self.stdout.write(progress)
