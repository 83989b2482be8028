from typing import Any

from django.core.management.base import BaseCommand

from fulfillment import states as fulfillment
from purchases import states as purchases


class Command(BaseCommand):
    help = "Print the lives of a purchase and of a fulfilment as the README's Mermaid diagrams."
    requires_system_checks: tuple[str, ...] = ()

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(purchases.state_diagram())
        self.stdout.write("\n" + fulfillment.state_diagram())
