"""Admin of fulfilments, and what an offer's own page shows of its delivery.

The pages of a type are in its package: ``fulfillment.<package>.admin``.
"""

from collections.abc import Callable
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone

from fulfillment import delivery
from fulfillment.bookings.admin import ServiceDetailsInline, TimeSlotInline
from fulfillment.digital.admin import ContentInline, ContentPages
from fulfillment.models import Fulfillment, FulfillmentTransition
from fulfillment.shipping import admin as shipping_admin  # noqa: F401 - it registers its pages
from fulfillment.tickets import admin as tickets_admin  # noqa: F401 - as above
from offers.admin import OfferAdmin
from offers.models import Offer
from offers.scoped_admin import EDITORS, ScopedAdmin
from purchases.admin import ReadOnly, ReadOnlyInline

# What is set up on the page of an offer of each type, once it is saved: by the types' packages.
INLINES: dict[str, list[type[admin.TabularInline]]] = {
    Offer.Type.EXCLUSIVE_CONTENT: [ContentInline],
    Offer.Type.TICKET_UPGRADE: [],
    Offer.Type.MERCHANDISE: [],
    Offer.Type.SERVICE: [ServiceDetailsInline, TimeSlotInline],
}

admin.site.unregister(Offer)


@admin.register(Offer)
class DeliverableOfferAdmin(ContentPages, OfferAdmin):
    """The page of an offer, with what its buyers are to get."""

    def get_inlines(self, request: HttpRequest, obj: Offer | None) -> Any:
        return () if obj is None else INLINES[obj.offer_type]

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


class ReasonForm(forms.Form):
    """What staff are asked before they overrule the worker."""

    reason = forms.CharField(
        max_length=500,
        widget=forms.TextInput(attrs={"size": 60}),
        help_text="It stays on record with your name.",
    )


@admin.register(Fulfillment)
class FulfillmentAdmin(ReadOnly, ScopedAdmin):
    organization = "purchase__event__organization"
    list_display = (
        "paid_at", "purchase", "buyer", "type", "status", "attempts", "due_at", "error",
    )  # fmt: skip
    list_filter = ("status", "type", "purchase__event")
    list_select_related = ("purchase__user",)
    search_fields = ("=id", "=purchase__id", "purchase__offer_title", "purchase__user__username")
    date_hierarchy = "paid_at"
    show_full_result_count = False
    fields = (
        "id", "purchase", "buyer", "type", "status", "error", "attempts", "due_at", "paid_at",
        "created_at", "fulfilled_at", "revoked_at",
    )  # fmt: skip
    inlines = (TransitionInline,)
    ordering: ClassVar = ["-paid_at"]
    actions = ("retry", "mark_done", "revoke")

    @admin.display(ordering="purchase__user__username")
    def buyer(self, fulfillment: Fulfillment) -> str:
        return str(fulfillment.purchase.user)

    @admin.action(description="Try again now")
    def retry(self, request: HttpRequest, queryset: QuerySet[Fulfillment]) -> None:
        self._each(request, queryset, delivery.retry, "will be tried again now")

    @admin.action(description="Mark as done…")
    def mark_done(
        self, request: HttpRequest, queryset: QuerySet[Fulfillment]
    ) -> HttpResponse | None:
        """For what staff gave the buyers themselves."""
        explanation = "The buyers have it by other means: nothing more is handed out or sent."
        return self._ask_and_do(
            request, queryset, delivery.mark_done, "marked as done", explanation=explanation
        )

    @admin.action(description="Revoke…")
    def revoke(self, request: HttpRequest, queryset: QuerySet[Fulfillment]) -> HttpResponse | None:
        """Without a refund, which revokes by itself."""
        explanation = (
            "Links and codes stop working, tickets go back to their tier, parcels and bookings are "
            "cancelled. It can't be undone, and no money goes back: that is the purchase's Refund."
        )
        return self._ask_and_do(
            request, queryset, delivery.revoke, "revoked", explanation=explanation
        )

    def _ask_and_do(
        self,
        request: HttpRequest,
        queryset: QuerySet[Fulfillment],
        do: Callable[..., Any],
        done: str,
        *,
        explanation: str,
    ) -> HttpResponse | None:
        form = ReasonForm(request.POST if "reason" in request.POST else None)
        if form.is_valid():
            self._each(request, queryset, do, done, reason=form.cleaned_data["reason"])
            return None
        context = {
            **self.admin_site.each_context(request),
            "title": "Why?",
            "explanation": explanation,
            "opts": self.opts,
            "form": form,
            "action": request.POST["action"],
            "chosen": self.within(request, queryset, EDITORS).select_related("purchase__user"),
        }
        return TemplateResponse(request, "admin/fulfillment/fulfillment/why.html", context)

    def _each(
        self,
        request: HttpRequest,
        queryset: QuerySet[Fulfillment],
        do: Callable[..., Any],
        done: str,
        **more: Any,
    ) -> None:
        chosen = queryset.select_related("purchase")
        self.each(request, chosen, do, done, name=lambda each: each.purchase, **more)
