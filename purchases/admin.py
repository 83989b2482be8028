"""Plain, read-only admin pages: a purchase changes through its transitions only."""

from typing import Any, ClassVar

from django.contrib import admin
from django.http import HttpRequest

from purchases.models import (
    Dispute,
    Email,
    Purchase,
    PurchaseTransition,
    Refund,
    StripeEvent,
)


class ReadOnly(admin.ModelAdmin):
    """Look, don't touch."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class ReadOnlyInline(admin.TabularInline):
    extra = 0
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
        "error", "settled_at",
    )  # fmt: skip


class DisputeInline(ReadOnlyInline):
    model = Dispute
    fields = ("id", "status", "reason", "amount", "evidence_due_by", "funds_withdrawn_at")


@admin.register(Purchase)
class PurchaseAdmin(ReadOnly):
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


@admin.register(PurchaseTransition)
class PurchaseTransitionAdmin(ReadOnly):
    list_display = ("created_at", "purchase", "from_status", "to_status", "source", "actor")
    list_filter = ("to_status", "source")
    list_select_related = ("purchase", "actor")
    search_fields = ("=purchase__id",)


@admin.register(Refund)
class RefundAdmin(ReadOnly):
    list_display = ("created_at", "purchase", "amount", "state", "cause", "requested_by", "error")
    list_filter = ("state", "cause")
    list_select_related = ("purchase", "requested_by")
    search_fields = ("=purchase__id", "=stripe_refund_id", "=payment_intent_id")


@admin.register(Dispute)
class DisputeAdmin(ReadOnly):
    """The most urgent first; they are answered in Stripe's dashboard."""

    list_display = (
        "id", "purchase", "amount", "currency", "reason", "status", "evidence_due_by",
        "funds_withdrawn_at", "funds_reinstated_at",
    )  # fmt: skip
    list_filter = ("status", "reason")
    list_select_related = ("purchase",)
    search_fields = ("=id", "=purchase__id")


@admin.register(Email)
class EmailAdmin(ReadOnly):
    list_display = ("created_at", "purchase", "occasion", "state", "attempts", "sent_at", "error")
    list_filter = ("state", "occasion")
    list_select_related = ("purchase",)
    search_fields = ("=purchase__id",)


@admin.register(StripeEvent)
class StripeEventAdmin(ReadOnly):
    list_display = ("id", "type", "state", "attempts", "created", "received_at")
    list_filter = ("state", "type")
    search_fields = ("=id",)
    ordering: ClassVar = ["-received_at"]
