"""Plain, read-only admin pages: a purchase changes through its transitions only."""

from typing import Any, ClassVar, cast
from uuid import uuid4

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone

from offers import targeting
from offers.errors import DomainError
from offers.scoped_admin import ModelAdmin, ScopedAdmin, ScopedInline, SuperusersOnly
from purchases import refund_requests
from purchases.bulk.actions import PurchaseActions
from purchases.models import (
    Dispute,
    Email,
    Purchase,
    PurchaseTransition,
    Refund,
    StripeEvent,
)
from purchases.states import Status


class ReadOnly(ModelAdmin):
    """Look, don't touch."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class ReadOnlyInline(ScopedInline):
    can_delete = False
    show_change_link = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class TransitionInline(ReadOnlyInline):
    model = PurchaseTransition
    fields = ("created_at", "from_status", "to_status", "source", "actor", "reason")


class RefundInline(ReadOnlyInline):
    model = Refund
    fields = (
        "created_at", "amount", "state", "cause", "reason", "requested_by", "stripe_refund_id",
        "error",
    )  # fmt: skip


class DisputeInline(ReadOnlyInline):
    model = Dispute
    fields = ("id", "status", "reason", "amount", "evidence_due_by", "funds_withdrawn_at")


class RefundForm(forms.Form):
    """What staff are asked before money goes back."""

    amount = forms.DecimalField(
        required=False,
        max_digits=15,
        decimal_places=3,
        help_text="Leave it empty to send back all that is left; a part keeps the units sold.",
    )
    restock = forms.BooleanField(
        required=False,
        initial=True,
        label="Put the units back on sale",
        help_text="After a full refund; otherwise the offer's total shrinks by them.",
    )
    reason = forms.CharField(required=False, max_length=500, widget=forms.TextInput)
    # One form is one refund, however often it is sent.
    idempotency_key = forms.CharField(
        required=False, max_length=255, widget=forms.HiddenInput, initial=uuid4
    )


@admin.register(Purchase)
class PurchaseAdmin(PurchaseActions, ReadOnly, ScopedAdmin):
    organization = "event__organization"
    change_form_template = "admin/purchases/purchase/change_form.html"
    list_display = (
        "offer_title", "user", "quantity", "total_price", "currency", "status",
        "release_reason", "reserved_until", "created_at",
    )  # fmt: skip
    list_filter = (
        "status",
        "release_reason",
        ("problem", admin.EmptyFieldListFilter),
        "event",
    )
    list_select_related = ("user",)
    search_fields = ("=id", "offer_title", "user__username", "=checkout_session_id")
    date_hierarchy = "created_at"
    fields = (
        "id", "user", "offer", "event", "offer_title", "quantity", "unit_price", "total_price",
        "currency", "status", "release_reason", "reserved_until", "refunded_amount",
        "created_at", "paid_at", "refunded_at", "checkout_session_id", "payment_intent_id",
        "problem", "checkout_expires_at", "checkout_attempt", "idempotency_key",
    )  # fmt: skip
    inlines = (TransitionInline, RefundInline, DisputeInline)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        purchase = kwargs.get("obj")
        context["may_refund"] = (
            purchase is not None
            and purchase.status in (Status.PAID, Status.REFUND_DUE)
            and targeting.may_refund(cast("User", request.user), purchase.event)
        )
        return super().render_change_form(request, context, *args, **kwargs)

    def get_urls(self) -> list[Any]:
        refund = self.admin_site.admin_view(self.refund_view)
        own = path("<path:object_id>/refund/", refund, name="purchases_purchase_refund")
        return [own, *super().get_urls()]

    def refund_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask how much to send back, and do it as the API does."""
        purchase = self.get_object(request, object_id)
        if purchase is None:
            raise Http404
        if not targeting.may_refund(cast("User", request.user), purchase.event):
            raise PermissionDenied
        form = RefundForm(request.POST if request.method == "POST" else None)
        if form.is_valid():
            key = form.cleaned_data["idempotency_key"]
            try:
                requested = refund_requests.request(
                    purchase_id=purchase.pk,
                    actor=cast("User", request.user),
                    source="admin",
                    now=timezone.now(),
                    **form.cleaned_data | {"idempotency_key": key or None},
                )
            except DomainError as error:
                form.add_error(error.attr, str(error))
            else:
                status = requested.purchase.get_status_display().lower()
                what = "This was asked for before" if requested.repeated else "Asked for"
                messages.success(request, f"{what}: the purchase is {status} now.")
                return redirect(reverse("admin:purchases_purchase_change", args=[purchase.pk]))
        context = {
            **self.admin_site.each_context(request),
            "title": f"Refund {purchase}",
            "opts": self.opts,
            "original": purchase,
            "form": form,
        }
        return TemplateResponse(request, "admin/purchases/purchase/refund.html", context)


@admin.register(PurchaseTransition)
class PurchaseTransitionAdmin(ReadOnly, ScopedAdmin):
    organization = "purchase__event__organization"
    list_display = ("created_at", "purchase", "from_status", "to_status", "source", "actor")
    list_filter = ("to_status", "source")
    list_select_related = ("purchase", "actor")
    search_fields = ("=purchase__id",)


@admin.register(Refund)
class RefundAdmin(ReadOnly, ScopedAdmin):
    organization = "purchase__event__organization"
    list_display = ("created_at", "purchase", "amount", "state", "cause", "requested_by", "error")
    list_filter = ("state", "cause")
    list_select_related = ("purchase", "requested_by")
    search_fields = ("=purchase__id", "=stripe_refund_id", "=payment_intent_id")


@admin.register(Dispute)
class DisputeAdmin(ReadOnly, ScopedAdmin):
    """The most urgent first; they are answered in Stripe's dashboard."""

    organization = "purchase__event__organization"
    list_display = (
        "id", "purchase", "amount", "currency", "reason", "status", "evidence_due_by",
        "funds_withdrawn_at", "funds_reinstated_at",
    )  # fmt: skip
    list_filter = ("status", "reason")
    list_select_related = ("purchase",)
    search_fields = ("=id", "=purchase__id")


@admin.register(Email)
class EmailAdmin(ReadOnly, ScopedAdmin):
    organization = "purchase__event__organization"
    list_display = (
        "created_at", "purchase", "occasion", "reference", "state", "attempts", "sent_at", "error",
    )  # fmt: skip
    list_filter = ("state",)
    list_select_related = ("purchase",)
    search_fields = ("=purchase__id", "=reference", "=occasion")
    fields = (
        "purchase", "occasion", "reference", "attached", "state", "attempts", "due_at", "error",
        "created_at", "sent_at",
    )  # fmt: skip
    readonly_fields = ("attached",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Email]:
        return super().get_queryset(request).defer("attachments")

    @admin.display(description="attachments")
    def attached(self, email: Email) -> str:
        return ", ".join(attachment["name"] for attachment in email.attachments)


@admin.register(StripeEvent)
class StripeEventAdmin(ReadOnly, SuperusersOnly):
    list_display = ("id", "type", "state", "attempts", "created", "received_at")
    list_filter = ("state", "type")
    search_fields = ("=id",)
    ordering: ClassVar = ["-received_at"]


# Django finds an app's pages in this module.
from purchases.bulk import admin as bulk  # noqa: E402, F401
from purchases.subscribers import admin as subscribers  # noqa: E402, F401
