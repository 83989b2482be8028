from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from offers import contention


class Command(BaseCommand):
    help = (
        "Store LOCK_TIMEOUT_MS and STATEMENT_TIMEOUT_MS in PostgreSQL, for the role that connects: "
        "how they hold behind a pooler. To be run after each change of the two."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="only print the statements")

    def handle(self, *args: Any, dry_run: bool, **options: Any) -> None:
        for statement in contention.store_timeouts(dry_run=dry_run):
            self.stdout.write(f"{statement};")
