from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.utils import timezone

from offers import catalog


class Command(BaseCommand):
    help = "Deactivate offers whose sale window has ended."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="only count them")

    def handle(self, *args: Any, dry_run: bool, **options: Any) -> None:
        count = catalog.expire(now=timezone.now(), dry_run=dry_run)
        verb = "would be deactivated" if dry_run else "deactivated"
        self.stdout.write(f"{count} offers {verb}.")
