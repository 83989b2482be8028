"""Upgrades in admin, to look at; and registrations, which upgrades change as well as staff do."""

from typing import Any, cast

from django.contrib import admin
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from fulfillment.tickets import registering
from fulfillment.tickets.models import TicketUpgrade
from offers.admin import RegistrationAdmin, RegistrationForm
from offers.models import Registration
from offers.scoped_admin import ScopedAdmin
from purchases.read_only_admin import ReadOnly, ReadOnlyInline

TIER = "ticket_tier"


@admin.register(TicketUpgrade)
class TicketUpgradeAdmin(ReadOnly, ScopedAdmin):
    organization = "fulfillment__purchase__event__organization"
    list_display = ("applied_at", "registration", "from_tier", "to_tier", "code", "revoked_at")
    list_select_related = (
        "registration__user", "registration__event", "from_tier__event", "to_tier__event",
    )  # fmt: skip
    list_filter = (("revoked_at", admin.EmptyFieldListFilter), "to_tier")
    search_fields = (
        "=code", "=fulfillment__purchase__id", "registration__user__username",
        "registration__user__email", "registration__event__title",
    )  # fmt: skip


class UpgradeInline(ReadOnlyInline):
    model = TicketUpgrade
    fields = ("applied_at", "from_tier", "to_tier", "code", "revoked_at")

    def get_queryset(self, request: HttpRequest) -> QuerySet[TicketUpgrade]:
        """With what the tiers and the upgrades themselves are called by."""
        upgrades: QuerySet[TicketUpgrade] = super().get_queryset(request)
        return upgrades.select_related(
            "from_tier__event", "to_tier__event", "registration__user", "registration__event"
        )


class UpgradedMeanwhileForm(RegistrationForm):
    """A form that was open while an upgrade was delivered doesn't write the old tier back."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if TIER in self.fields:
            # So that what staff changed can be told from what changed meanwhile.
            self.fields[TIER].show_hidden_initial = True

    def clean(self) -> dict[str, Any]:
        data = super().clean()
        if not self.instance._state.adding and data.get(TIER):
            self._compare_with_now(data)
        return data

    def _compare_with_now(self, data: dict[str, Any]) -> None:
        # Locked until admin's transaction ends: no upgrade comes between this and the save.
        now = (
            Registration.objects.select_for_update(of=("self",), no_key=True)
            .select_related("ticket_tier__event")
            .get(pk=self.instance.pk)
            .ticket_tier
        )
        seen = self.data.get(self[TIER].html_initial_name)
        if TIER not in self.changed_data:
            data[TIER] = now
        elif seen and seen != str(now.pk):
            self.add_error(TIER, f"Meanwhile this became {now.title}: load the page again.")


admin.site.unregister(Registration)


@admin.register(Registration)
class UpgradableRegistrationAdmin(RegistrationAdmin):
    form = UpgradedMeanwhileForm

    def get_inlines(self, request: HttpRequest, obj: Registration | None) -> Any:
        return () if obj is None else (UpgradeInline,)

    def save_model(self, request: HttpRequest, obj: Registration, form: Any, change: Any) -> None:
        """Save; upgrades that waited for this registration are tried again."""
        super().save_model(request, obj, form, change)
        actor = cast("User", request.user)
        transaction.on_commit(
            lambda: registering.retry_upgrades(obj, now=timezone.now(), source="admin", actor=actor)
        )
