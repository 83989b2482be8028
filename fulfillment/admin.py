"""Admin of fulfilments, and what an offer's own page shows of its delivery.

The pages of a type are in its package: ``fulfillment.<package>.admin``.
"""

import uuid
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.db import transaction
from django.http import HttpRequest
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.text import Truncator

from fulfillment import copying, delivery, purchase_admin
from fulfillment.bookings.admin import ServiceDetailsInline, TimeSlotInline
from fulfillment.digital.admin import ContentInline, ContentPages
from fulfillment.models import Fulfillment, FulfillmentTransition
from fulfillment.shipping import admin as shipping_admin  # noqa: F401 - it registers its pages
from fulfillment.tickets import admin as tickets_admin  # noqa: F401 - as above
from offers.admin import OfferAdmin
from offers.models import Offer
from offers.scoped_admin import ScopedAdmin
from purchases import wording
from purchases.bulk.actions import BulkActions
from purchases.offer_admin import StuckHolds
from purchases.read_only_admin import ReadOnly, ReadOnlyInline
from purchases.wording import label, two_lines, when

# Characters of an error that a list shows.
LONGEST_ERROR = 120
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
        "of_purchase", "buyer", "kind", "state_in_words", "attempts", "went_wrong", "times",
    )  # fmt: skip
    list_filter = ("status", "type", "purchase__event")
    list_select_related = ("purchase__user", "purchase__event")
    search_fields = ("=id", "=purchase__id", "purchase__offer__title", "purchase__user__username")
    search_help_text = "Title of the offer, user name of the buyer, the id of it or its purchase"
    date_hierarchy = "paid_at"
    show_full_result_count = False
    fields = (
        "id", "of_purchase", "buyer", "kind", "state_in_words", "error", "attempts", "due", "paid",
        "made", "fulfilled", "revoked",
    )  # fmt: skip
    readonly_fields = (
        "of_purchase", "buyer", "kind", "state_in_words", "due", "paid", "made", "fulfilled",
        "revoked",
    )  # fmt: skip
    inlines = (TransitionInline,)
    ordering: ClassVar = ["-paid_at"]
    bulk_kinds = ("retry", "mark_done", "revoke")
    # The purchase's link leads to the purchase.
    list_display_links = ("kind",)

    @admin.display(description="purchase")
    def of_purchase(self, fulfillment: Fulfillment) -> SafeString:
        purchase = fulfillment.purchase
        return two_lines(wording.to(purchase), purchase.event.title)

    @admin.display(ordering="purchase__user__username")
    def buyer(self, fulfillment: Fulfillment) -> SafeString:
        return wording.buyer(fulfillment.purchase)

    @admin.display(description="type", ordering="type")
    def kind(self, fulfillment: Fulfillment) -> str:
        return purchase_admin.TYPE[fulfillment.type]

    @admin.display(description="status", ordering="status")
    def state_in_words(self, fulfillment: Fulfillment) -> SafeString:
        return label(*purchase_admin.STATUS[fulfillment.status])

    @admin.display(description="error")
    def went_wrong(self, fulfillment: Fulfillment) -> str:
        """Its beginning; the page of one has it all."""
        return Truncator(fulfillment.error).chars(LONGEST_ERROR)

    @admin.display(description="paid, next attempt (UTC)", ordering="paid_at")
    def times(self, fulfillment: Fulfillment) -> SafeString:
        due = fulfillment.due_at and f"next {wording.short(fulfillment.due_at)}"
        return two_lines(wording.short(fulfillment.paid_at), due)

    @admin.display(description="next attempt")
    def due(self, fulfillment: Fulfillment) -> str:
        return when(fulfillment.due_at)

    @admin.display(description="paid")
    def paid(self, fulfillment: Fulfillment) -> str:
        return when(fulfillment.paid_at)

    @admin.display(description="taken on")
    def made(self, fulfillment: Fulfillment) -> str:
        return when(fulfillment.created_at)

    @admin.display(description="delivered")
    def fulfilled(self, fulfillment: Fulfillment) -> str:
        return when(fulfillment.fulfilled_at)

    @admin.display(description="revoked")
    def revoked(self, fulfillment: Fulfillment) -> str:
        return when(fulfillment.revoked_at)
