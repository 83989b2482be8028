"""Admin of fulfilments, and what an offer's own page shows of its delivery.

The pages of a type are in its package: ``fulfillment.<package>.admin``.
"""

from typing import Any, ClassVar

from django.contrib import admin
from django.http import HttpRequest

from fulfillment.models import Fulfillment, FulfillmentTransition
from offers.admin import OfferAdmin
from offers.models import Offer
from offers.scoped_admin import ScopedAdmin
from purchases.admin import ReadOnly, ReadOnlyInline

# What is set up on the page of an offer of each type, once it is saved: by the types' packages.
INLINES: dict[str, list[type[admin.TabularInline]]] = {
    Offer.Type.EXCLUSIVE_CONTENT: [],
    Offer.Type.TICKET_UPGRADE: [],
    Offer.Type.MERCHANDISE: [],
    Offer.Type.SERVICE: [],
}

admin.site.unregister(Offer)


@admin.register(Offer)
class DeliverableOfferAdmin(OfferAdmin):
    """The page of an offer, with what its buyers are to get."""

    def get_inlines(self, request: HttpRequest, obj: Offer | None) -> Any:
        return () if obj is None else INLINES[obj.offer_type]


class TransitionInline(ReadOnlyInline):
    model = FulfillmentTransition
    fields = ("created_at", "from_status", "to_status", "source", "actor", "reason")


@admin.register(Fulfillment)
class FulfillmentAdmin(ReadOnly, ScopedAdmin):
    organization = "purchase__event__organization"
    list_display = ("paid_at", "purchase", "type", "status", "attempts", "due_at", "error")
    list_filter = ("status", "type", "purchase__event")
    list_select_related = ("purchase",)
    search_fields = ("=id", "=purchase__id", "purchase__offer_title", "purchase__user__username")
    date_hierarchy = "paid_at"
    inlines = (TransitionInline,)
    ordering: ClassVar = ["-paid_at"]
