"""To be written."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from fulfillment.errors import CannotDeliver
from fulfillment.models import Fulfillment

# What ``describe`` reads, as lookups from the fulfilment.
PREFETCH: tuple[str, ...] = ()


def deliver(fulfillment: Fulfillment, *, now: datetime) -> bool:
    raise CannotDeliver("Nothing of this type can be delivered yet.")


def revoke(fulfillment: Fulfillment, *, now: datetime) -> None:
    pass


def describe(fulfillment: Fulfillment, *, absolute: Callable[[str], str]) -> dict[str, Any]:
    return {}


def page(fulfillment: Fulfillment, *, now: datetime) -> dict[str, Any]:
    return {}
