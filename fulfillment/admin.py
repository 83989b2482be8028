"""Admin of fulfilments, and what an offer's own page shows of its delivery.

The pages of a type are in its package: ``fulfillment.<package>.admin``.
"""

import uuid
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.db import transaction
from django.http import HttpRequest
from django.utils import timezone

from fulfillment import (
    copying,
    delivery,
    purchase_admin,  # noqa: F401 - it registers its page
)
from fulfillment.bookings.admin import ServiceDetailsInline, TimeSlotInline
from fulfillment.digital.admin import ContentInline, ContentPages
from fulfillment.models import Fulfillment, FulfillmentTransition
from fulfillment.shipping import admin as shipping_admin  # noqa: F401 - it registers its pages
from fulfillment.tickets import admin as tickets_admin  # noqa: F401 - as above
from offers.admin import OfferAdmin
from offers.models import Offer
from offers.scoped_admin import ScopedAdmin
from purchases.admin import ReadOnly, ReadOnlyInline
from purchases.bulk.actions import BulkActions
from purchases.offer_admin import StuckHolds

# What is set up on the page of an offer of each type, once it is saved: by the types' packages.
INLINES: dict[str, list[type[admin.TabularInline]]] = {
    Offer.Type.EXCLUSIVE_CONTENT: [ContentInline],
    Offer.Type.TICKET_UPGRADE: [],
    Offer.Type.MERCHANDISE: [],
    Offer.Type.SERVICE: [ServiceDetailsInline, TimeSlotInline],
}

admin.site.unregister(Offer)


@admin.register(Offer)
class DeliverableOfferAdmin(StuckHolds, ContentPages, OfferAdmin):
    """The page of an offer, with what its buyers are to get."""

    def get_inlines(self, request: HttpRequest, obj: Offer | None) -> Any:
        return () if obj is None else INLINES[obj.offer_type]

    def copied(self, original_id: uuid.UUID, copy: Offer) -> None:
        copying.copy_setup(original_id, copy)

    def save_model(self, request: HttpRequest, obj: Offer, form: Any, change: Any) -> None:
        """Save; who waits for what the offer was missing is served now.

        After the commit: a delivery has its fulfilment locked before it looks at the offer.
        """
        super().save_model(request, obj, form, change)
        if change and "ticket_tier" in form.changed_data:
            transaction.on_commit(lambda: delivery.retry_offer(obj.pk, now=timezone.now()))

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: Any) -> None:
        """Save what belongs to the offer, and say what its buyers would wait for."""
        super().save_related(request, form, formsets, change)
        missing = delivery.missing(form.instance, now=timezone.now())
        if missing is not None and form.instance.is_active and not form.instance.is_archived:
            messages.warning(request, f"It is on sale, but {missing}")


class TransitionInline(ReadOnlyInline):
    model = FulfillmentTransition
    fields = ("created_at", "from_status", "to_status", "source", "actor", "reason")


@admin.register(Fulfillment)
class FulfillmentAdmin(BulkActions, ReadOnly, ScopedAdmin):
    organization = "purchase__event__organization"
    list_display = (
        "paid_at", "purchase", "buyer", "type", "status", "attempts", "due_at", "error",
    )  # fmt: skip
    list_filter = ("status", "type", "purchase__event")
    list_select_related = ("purchase__user",)
    search_fields = ("=id", "=purchase__id", "purchase__offer__title", "purchase__user__username")
    date_hierarchy = "paid_at"
    show_full_result_count = False
    fields = (
        "id", "purchase", "buyer", "type", "status", "error", "attempts", "due_at", "paid_at",
        "created_at", "fulfilled_at", "revoked_at",
    )  # fmt: skip
    inlines = (TransitionInline,)
    ordering: ClassVar = ["-paid_at"]
    bulk_kinds = ("retry", "mark_done", "revoke")

    @admin.display(ordering="purchase__user__username")
    def buyer(self, fulfillment: Fulfillment) -> str:
        return str(fulfillment.purchase.user)
