from typing import Any

from django.core.management.base import BaseCommand

from purchases.states import state_diagram


class Command(BaseCommand):
    help = "Print the life of a purchase as the Mermaid diagram that stands in the README."
    requires_system_checks: tuple[str, ...] = ()

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(state_diagram())
