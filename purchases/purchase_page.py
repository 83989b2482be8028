"""Admin of purchases: the list, and the page of one with all that happened to it.

A purchase changes through its transitions only, so everything here is to be looked at; what staff
do is behind the buttons. ``fulfillment.purchase_admin`` adds what became of the delivery.
"""

from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import Exists, OuterRef, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from offers import stripe_dashboard
from offers.scoped_admin import ScopedAdmin
from purchases import disputes, holds, refund_requests, search, timeline, wording
from purchases.bulk.actions import PurchaseActions
from purchases.export_page import PurchaseExport
from purchases.list_filters import Days, NeedsAttention
from purchases.models import Purchase
from purchases.purchase_buttons import PurchaseButtons
from purchases.read_only_admin import ReadOnly
from purchases.stripe_objects import ADDRESS_PARTS
from purchases.wording import NOTHING, amount, label, two_lines, when

TECHNICAL = (
    "id", "checkout_attempt", "checkout_expiry", "checkout_failed", "being_ended",
    "stray_session_check_due", "fulfillment_due", "restock_on_refund", "idempotency_key",
)  # fmt: skip


@admin.register(Purchase)
class PurchaseAdmin(PurchaseActions, PurchaseButtons, PurchaseExport, ReadOnly, ScopedAdmin):
    organization = "event__organization"
    change_form_template = "admin/purchases/purchase/change_form.html"
    change_list_template = "admin/purchases/purchase/change_list.html"
    list_display = (
        "what", "of_buyer", "of_event", "total", "status_in_words", "attention", "times",
    )  # fmt: skip
    list_filter: ClassVar[tuple[Any, ...]] = (
        NeedsAttention,
        "status",
        "release_reason",
        "event",
        "offer__offer_type",
        ("paid_at", Days),
        ("created_at", Days),
    )
    list_filter_submit = True
    list_select_related: ClassVar[tuple[str, ...]] = ("user", "event")
    # What is searched is ``purchases.search``'s to say; without these there is no search box.
    search_fields = ("=id", "offer__title", "user__username")
    search_help_text = search.HELP
    # No date hierarchy, which would read all purchases for its years: there are filters by day.
    # For the same reason the number of all purchases isn't said beside that of those found.
    show_full_result_count = False
    ordering: ClassVar = ["-created_at", "-id"]
    fieldsets: ClassVar = [
        ("Who and what", {"fields": ("sold", "of_buyer", "of_event", "status_in_words")}),
        ("Money", {"fields": ("unit", "total", "refunded", "left", "payment")}),
        (
            "Hold and checkout",
            {"fields": ("made", "held_until", "paid", "sent_back", "why_released", "session")},
        ),
        ("Delivery", {"fields": ("method", "address")}),
        ("Technical", {"fields": TECHNICAL, "classes": ("collapse",)}),
    ]
    readonly_fields = (
        "sold", "of_buyer", "of_event", "status_in_words", "unit", "total", "refunded", "left",
        "payment", "made", "held_until", "paid", "sent_back", "why_released", "session", "method",
        "address", *TECHNICAL,
    )  # fmt: skip

    def get_queryset(self, request: HttpRequest) -> QuerySet[Purchase]:
        purchases: QuerySet[Purchase] = super().get_queryset(request)
        return purchases.annotate(
            is_disputed=Exists(disputes.open_ones().filter(purchase=OuterRef("pk"))),
            is_overdue=holds.is_overdue(now=timezone.now()),
        )

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Purchase], search_term: str
    ) -> tuple[QuerySet[Purchase], bool]:
        return search.find(queryset, search_term), False

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Leave out how it is delivered where that is nobody's choice."""
        sets = super().get_fieldsets(request, obj)
        if obj is None or obj.delivery_method:
            return sets
        return [each for each in sets if each[0] != "Delivery"]

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        purchase = kwargs.get("obj")
        if purchase is not None:
            context["urgent"] = self.urgent(purchase)
            context["timeline"] = timeline.oldest_first(self.happened_to(purchase))
        return super().render_change_form(request, context, *args, **kwargs)

    def happened_to(self, purchase: Purchase) -> list[timeline.Entry]:
        """The timeline's entries; a later app adds its own."""
        return timeline.of(purchase)

    def urgent(self, purchase: Purchase) -> list[tuple[str, str, str]]:
        """What needs a person: in two words, with its tone, and in a sentence."""
        found = []
        if purchase.problem:
            found.append(("Problem", "danger", purchase.problem))
        if getattr(purchase, "is_disputed", False):
            found.append(("Disputed", "danger", "The payment is disputed: answer it at Stripe."))
        if getattr(purchase, "is_overdue", False):
            until = min(filter(None, (purchase.reserved_until, purchase.checkout_failed_at)))
            said = f"The hold should have ended at {when(until)}."
            found.append(("Overdue", "warning", said))
        return found

    # -- Columns and facts ------------------------------------------------------------------------

    @admin.display(description="purchase")
    def what(self, purchase: Purchase) -> str:
        return f"{purchase.quantity} × {purchase.offer_title}"

    @admin.display(description="buyer")
    def of_buyer(self, purchase: Purchase) -> SafeString:
        return wording.buyer(purchase)

    @admin.display(description="event")
    def of_event(self, purchase: Purchase) -> str:
        return purchase.event.title

    @admin.display(description="total", ordering="total_price")
    def total(self, purchase: Purchase) -> str:
        return amount(purchase.total_price, purchase.currency)

    @admin.display(description="status", ordering="status")
    def status_in_words(self, purchase: Purchase) -> SafeString:
        shown = wording.status(purchase.status)
        if not purchase.release_reason:
            return shown
        return two_lines(shown, purchase.get_release_reason_display().lower())

    @admin.display(description="attention")
    def attention(self, purchase: Purchase) -> SafeString:
        labels = (
            (format_html('<span title="{}">{}</span>', said, label(words, tone)),)
            for words, tone, said in self.urgent(purchase)
        )
        return format_html_join(" ", "{}", labels)

    @admin.display(description="made, paid (UTC)", ordering="created_at")
    def times(self, purchase: Purchase) -> SafeString:
        paid = purchase.paid_at and f"paid {wording.short(purchase.paid_at)}"
        return two_lines(wording.short(purchase.created_at), paid)

    @admin.display(description="purchase")
    def sold(self, purchase: Purchase) -> SafeString:
        return wording.to(purchase.offer, self.what(purchase))

    @admin.display(description="unit price")
    def unit(self, purchase: Purchase) -> str:
        return amount(purchase.unit_price, purchase.currency)

    @admin.display(description="refunded")
    def refunded(self, purchase: Purchase) -> str:
        return amount(purchase.refunded_amount, purchase.currency)

    @admin.display(description="left to refund")
    def left(self, purchase: Purchase) -> str:
        """Without what is on its way back."""
        if purchase.paid_at is None:
            return NOTHING
        return amount(refund_requests.left_of(purchase), purchase.currency)

    @admin.display(description="payment at Stripe")
    def payment(self, purchase: Purchase) -> str:
        return stripe_dashboard.link(purchase.payment_intent_id)

    @admin.display(description="held since")
    def made(self, purchase: Purchase) -> str:
        return when(purchase.created_at)

    @admin.display(description="held until")
    def held_until(self, purchase: Purchase) -> str:
        return when(purchase.reserved_until)

    @admin.display(description="paid")
    def paid(self, purchase: Purchase) -> str:
        return when(purchase.paid_at)

    @admin.display(description="refunded at")
    def sent_back(self, purchase: Purchase) -> str:
        return when(purchase.refunded_at)

    @admin.display(description="released because")
    def why_released(self, purchase: Purchase) -> str:
        return purchase.get_release_reason_display() or NOTHING

    @admin.display(description="Checkout Session")
    def session(self, purchase: Purchase) -> str:
        return stripe_dashboard.link(purchase.checkout_session_id)

    @admin.display(description="method")
    def method(self, purchase: Purchase) -> str:
        return purchase.get_delivery_method_display()

    @admin.display(description="address, as told Stripe")
    def address(self, purchase: Purchase) -> str:
        told = purchase.shipping_address or {}
        lines = (told.get(part) for part in ("name", *ADDRESS_PARTS))
        return ", ".join(line for line in lines if line) or NOTHING

    @admin.display(description="session ends by itself")
    def checkout_expiry(self, purchase: Purchase) -> str:
        return when(purchase.checkout_expires_at)

    @admin.display(description="checkout failed")
    def checkout_failed(self, purchase: Purchase) -> str:
        return when(purchase.checkout_failed_at)

    @admin.display(description="being ended until")
    def being_ended(self, purchase: Purchase) -> str:
        return when(purchase.ending_until)
