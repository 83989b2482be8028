"""Plain, read-only admin pages: a purchase changes through its transitions only."""

from typing import Any, ClassVar

from django.contrib import admin
from django.http import HttpRequest

from purchases.models import Purchase, PurchaseTransition, StripeEvent


class ReadOnly(admin.ModelAdmin):
    """Look, don't touch."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class TransitionInline(admin.TabularInline):
    model = PurchaseTransition
    extra = 0
    can_delete = False
    fields = ("created_at", "from_status", "to_status", "source", "actor", "reason")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


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
        "refund_id", "problem", "checkout_expires_at", "checkout_attempt", "idempotency_key",
    )  # fmt: skip
    inlines = (TransitionInline,)


@admin.register(PurchaseTransition)
class PurchaseTransitionAdmin(ReadOnly):
    list_display = ("created_at", "purchase", "from_status", "to_status", "source", "actor")
    list_filter = ("to_status", "source")
    list_select_related = ("purchase", "actor")
    search_fields = ("=purchase__id",)


@admin.register(StripeEvent)
class StripeEventAdmin(ReadOnly):
    list_display = ("id", "type", "state", "attempts", "created", "received_at")
    list_filter = ("state", "type")
    search_fields = ("=id",)
    ordering: ClassVar = ["-received_at"]
