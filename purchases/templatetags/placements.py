from typing import Any

from django import template

from purchases import placements
from purchases.models import Purchase

register = template.Library()


@register.inclusion_tag("goes_with.html", takes_context=True)
def goes_with(context: Any, purchase: Purchase) -> dict[str, Any]:
    """``{% goes_with purchase %}``: what its buyer may want besides, or nothing at all.

    A section with a heading of its own, for the end of a page about a purchase. The page needs the
    request in its context, and select_related("event") saves a query.
    """
    request = context["request"]
    return {
        "cards": placements.cards_going_with(request, purchase),
        "request": request,
        "user": context.get("user"),
    }
