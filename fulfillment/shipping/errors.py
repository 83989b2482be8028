"""What can go wrong with a parcel. No HTTP here: ``http_errors.py`` maps these."""

from datetime import datetime

from offers.errors import DomainError


class OrderNotFound(DomainError):
    """Unknown, or a pick-up code that belongs to no order."""

    code = "not_found"
    message = "There is no such order."


class InvalidShipment(DomainError):
    """A carrier, tracking number, link or address that can't be; ``field`` names which."""

    code = "invalid"

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        super().__init__(message)


class WrongMethod(DomainError):
    """Sent what is collected, or the other way round."""

    code = "wrong_delivery_method"

    def __init__(self, *, is_collected: bool) -> None:
        super().__init__(
            "This is collected at the event: hand it over instead."
            if is_collected
            else "This is sent to its buyer: mark it shipped instead."
        )


class AlreadyHandedOver(DomainError):
    code = "already_handed_over"

    def __init__(self, *, at: datetime) -> None:
        self.at = at
        super().__init__(f"This was handed over on {at:%Y-%m-%d at %H:%M} UTC already.")


class AlreadyShipped(DomainError):
    code = "already_shipped"
    message = "This has left already: its address can't be changed any more."


class NotShippedYet(DomainError):
    code = "not_shipped_yet"
    message = "This was not shipped yet: mark it shipped first."


class NothingToComeBack(DomainError):
    code = "nothing_to_come_back"
    message = "Only what was shipped and then refunded can come back."
