"""Admin's list of offers: how each sells at a glance, and what is looked for."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.template.defaultfilters import date
from django.utils import timezone
from django.utils.html import format_html
from unfold.decorators import display

from offers import lifecycle, money
from offers.lifecycle import State
from offers.models import Offer
from offers.scoped_admin import ScopedAdmin

LOOKS: dict[str, str] = {
    State.ON_SALE: "success",
    State.SCHEDULED: "info",
    State.SOLD_OUT: "danger",
    State.PAUSED: "warning",
    State.ENDED: "default",
    State.ARCHIVED: "default",
}


class ByState(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        return [(state.value, str(state.label)) for state in State]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        """What is none of the states finds nothing."""
        if self.value() is None:
            return queryset
        found: QuerySet[Any] = lifecycle.with_state(queryset, timezone.now())
        return found.filter(state=self.value())


class ByStock(admin.SimpleListFilter):
    """Whatever their state: a paused offer can be sold out as well."""

    title = "stock"
    parameter_name = "stock"
    UNLIMITED = Q(inventory_total__isnull=True)
    FOUND: ClassVar = {
        "sold_out": lifecycle.SOLD_OUT,
        "left": ~lifecycle.SOLD_OUT & ~UNLIMITED,
        "unlimited": UNLIMITED,
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        return [("sold_out", "Sold out"), ("left", "Some left"), ("unlimited", "Unlimited")]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        if self.value() is None:
            return queryset
        found = self.FOUND.get(self.value() or "")
        return queryset.none() if found is None else queryset.filter(found)


class OfferList(ScopedAdmin):
    """Mixed into the admin of offers: columns, filters and search of the list."""

    list_display = ("offer", "state", "cost", "stock", "window", "placement", "offer_type")
    list_filter = ("event", ByState, ByStock, "offer_type", "placement")
    list_select_related = ("event",)
    list_per_page = 50
    list_max_show_all = 200
    ordering: ClassVar = ["-created_at"]
    search_fields = ("title", "event__title", "=id", "=stripe_product_id")
    search_help_text = "Title, event, id of the offer or of the product at Stripe"
    date_hierarchy = "created_at"
    # Counting all of them again, only to say how many the filter left out.
    show_full_result_count = False

    @admin.display(ordering="title")
    def offer(self, offer: Offer) -> str:
        return format_html(
            '<span class="offer-title">{}</span><span class="offer-event">{}</span>',
            offer.title,
            offer.event.title,
        )

    @display(label=LOOKS)
    def state(self, offer: Offer) -> tuple[str, str]:
        state = lifecycle.state_of(offer, timezone.now())
        return state.value, str(state.label)

    @admin.display(description="price", ordering="price")
    def cost(self, offer: Offer) -> str:
        return price_of(offer)

    @admin.display(ordering="inventory_sold")
    def stock(self, offer: Offer) -> str:
        return stock_bar(offer)

    @admin.display(description="on sale (UTC)", ordering="expires_at")
    def window(self, offer: Offer) -> str:
        return window_of(offer)


def price_of(offer: Offer) -> str:
    """The price with its currency, and the one before it struck through."""
    price = money.grouped(offer.price, offer.currency)
    if offer.original_price is None:
        return format_html('<span class="amount">{} {}</span>', price, offer.currency)
    return format_html(
        '<span class="amount">{} {} <del>{}</del></span>',
        price,
        offer.currency,
        money.grouped(offer.original_price, offer.currency),
    )


def stock_bar(offer: Offer) -> str:
    """A bar of what is sold, on hold and left, and the same in words, which is what is read out."""
    sold, reserved, left = offer.inventory_sold, offer.inventory_reserved, offer.inventory_available
    total = offer.inventory_total
    if total is None:
        said = f"{sold:,} sold, {reserved:,} on hold, unlimited"
        return format_html('<span class="stock"><span class="stock-text">{}</span></span>', said)
    return format_html(
        '<span class="stock"><span class="stock-bar" aria-hidden="true">'
        '<span class="stock-sold" style="width:{}%"></span>'
        '<span class="stock-reserved" style="width:{}%"></span></span>'
        '<span class="stock-text">{} sold, {} on hold, {} of {} left</span></span>',
        _percent(sold, total),
        _percent(reserved, total),
        f"{sold:,}",
        f"{reserved:,}",
        f"{left:,}",
        f"{total:,}",
    )


def window_of(offer: Offer) -> str:
    """From when until when, in UTC, as the list's heading says."""
    if offer.starts_at is None and offer.expires_at is None:
        return "always"
    parts = [
        f"{word} {_minute(moment)}"
        for word, moment in (("from", offer.starts_at), ("until", offer.expires_at))
        if moment is not None
    ]
    return format_html('<span class="window">{}</span>', " ".join(parts))


def _minute(moment: datetime) -> str:
    return date(moment, "j M Y, H:i")


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}" if whole else "0"
