from typing import Any

from django.core.management.base import CommandParser
from django.db import transaction
from waffle.management.commands import waffle_switch


class Command(waffle_switch.Command):
    """waffle's, with ``--dry-run`` as our other commands have it."""

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--dry-run", action="store_true", help="only say what would be set")

    def handle(self, *args: Any, dry_run: bool, **options: Any) -> None:
        # waffle tells its cache of the new state at the commit, and so not of this one.
        with transaction.atomic():
            super().handle(*args, **options)
            transaction.set_rollback(dry_run)
        if not options["list_switches"]:
            verb = "would be" if dry_run else "is"
            state = "on" if options["state"] else "off"
            self.stdout.write(f"{options['name']} {verb} {state}.")
