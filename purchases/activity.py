"""What is logged of purchases: the same keys on every line, so that they can be searched."""

from typing import Any

import structlog

from offers.error_texts import in_words
from purchases.models import Purchase

logger = structlog.get_logger("purchases")


def log_activity(action: str, purchase: Purchase, **more: Any) -> None:
    """One line for something that happened to a purchase; call it after the commit."""
    logger.info("purchase", **_keys(action, purchase), **_present(more))


def log_failure(action: str, purchase: Purchase, error: BaseException, **more: Any) -> None:
    """One line, with the traceback, for something that could not be done."""
    logger.error(
        "purchase failed",
        **_keys(action, purchase),
        **_present(more),
        error=in_words(error),
        exc_info=error,
    )


def alert(kind: str, purchase: Purchase | None = None, **more: Any) -> None:
    """One line that a person must see: money or stock needs a look. Search for the key ``alert``.

    Whatever it is about is also on record where staff look: the purchase's ``problem``, a dispute,
    a dead event.
    """
    about = {} if purchase is None else _keys(kind, purchase)
    logger.error("alert", alert=kind, **about, **_present(more))


def _keys(action: str, purchase: Purchase) -> dict[str, Any]:
    return {
        "action": action,
        "purchase_id": str(purchase.pk),
        "offer_id": str(purchase.offer_id),
        "event_id": str(purchase.event_id),
        "user_id": purchase.user_id,
        "quantity": purchase.quantity,
        "status": purchase.status,
    }


def _present(more: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in more.items() if value is not None}
