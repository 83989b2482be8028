"""Read-only admin pages: what is about purchases changes by the domain's functions only."""

from typing import Any, ClassVar

from django.contrib import admin
from django.http import HttpRequest
from django.utils.safestring import SafeString

from offers.scoped_admin import ModelAdmin, ScopedAdmin, ScopedInline
from purchases import wording
from purchases.wording import two_lines, when


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


class OfPurchases(ReadOnly, ScopedAdmin):
    """Rows that belong to a purchase: newest first, with its title, which leads to it."""

    organization = "purchase__event__organization"
    list_select_related: ClassVar[tuple[str, ...]] = ("purchase__event",)
    show_full_result_count = False
    ordering: ClassVar = ["-created_at"]

    @admin.display(description="purchase")
    def of_purchase(self, row: Any) -> SafeString:
        return two_lines(wording.to(row.purchase), row.purchase.event.title)

    @admin.display(description="when", ordering="created_at")
    def made(self, row: Any) -> str:
        return when(row.created_at)
