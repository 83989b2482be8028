from typing import Any

from django.core.management.base import BaseCommand, CommandError

from purchases import reconciliation


class Command(BaseCommand):
    help = "Compare each offer's counters with its purchases; exit code 1 on a difference."

    def handle(self, *args: Any, **options: Any) -> None:
        differences = list(reconciliation.counter_differences())
        for difference in differences:
            self.stdout.write(str(difference))
        if differences:
            raise CommandError(f"{len(differences)} offers differ from their purchases.")
        self.stdout.write("Every offer's counters equal its purchases.")
