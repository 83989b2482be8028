"""Plain admin pages; they write through the same functions as the API.

Who may do what on them is ``offers.scoped_admin``'s to say.
"""

import difflib
import re
from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.db import models, transaction
from django.http import HttpRequest
from django.utils.functional import lazy
from django.utils.html import format_html
from unfold.widgets import UnfoldAdminTextInputWidget, UnfoldAdminURLInputWidget

from offers import countries, history, inventory, targeting
from offers.errors import DomainError
from offers.models import (
    Event,
    EventSession,
    Membership,
    Offer,
    Organization,
    Registration,
    TicketTier,
)
from offers.offer_actions import OfferActions
from offers.offer_files import OfferFiles
from offers.offer_history import OfferHistoryPage
from offers.offer_list import OfferList
from offers.scoped_admin import NOBODY, OWNERS, ScopedAdmin, ScopedInline


class MembershipInline(ScopedInline):
    model = Membership
    editors = adders = deleters = OWNERS


@admin.register(Organization)
class OrganizationAdmin(ScopedAdmin):
    organization = "pk"
    editors = OWNERS
    adders = NOBODY
    list_display = ("name", "slug")
    ordering = ("name",)
    search_fields = ("name", "slug")
    prepopulated_fields: ClassVar = {"slug": ("name",)}
    inlines = (MembershipInline,)


class EventSessionInline(ScopedInline):
    model = EventSession


class TicketTierInline(ScopedInline):
    model = TicketTier


@admin.register(Event)
class EventAdmin(ScopedAdmin):
    organization = "organization"
    list_display = ("title", "slug", "organization", "is_public", "starts_at")
    ordering = ("title",)
    list_filter = ("is_public",)
    list_select_related = ("organization",)
    search_fields = ("title", "slug")
    autocomplete_fields = ("organization",)
    prepopulated_fields: ClassVar = {"slug": ("title",)}
    inlines = (EventSessionInline, TicketTierInline)


@admin.register(EventSession)
class EventSessionAdmin(ScopedAdmin):
    organization = "event__organization"
    list_display = ("title", "event", "starts_at")
    ordering = ("title",)
    list_select_related = ("event",)
    search_fields = ("title", "slug", "event__title")
    autocomplete_fields = ("event",)


@admin.register(TicketTier)
class TicketTierAdmin(ScopedAdmin):
    organization = "event__organization"
    list_display = ("title", "event")
    ordering = ("title",)
    list_select_related = ("event",)
    search_fields = ("title", "slug", "event__title")
    autocomplete_fields = ("event",)


class RegistrationForm(forms.ModelForm):
    """The base of the admin's form, which adds the model and its fields."""

    def clean(self) -> dict[str, Any]:
        """Add the rule about sessions, which no ``clean`` of the model can see, to the tier's."""
        data = super().clean() or {}
        event = data.get("event")
        if event and any(session.event_id != event.pk for session in data.get("sessions", [])):
            self.add_error("sessions", "Choose sessions of the registration's own event.")
        return data


@admin.register(Registration)
class RegistrationAdmin(ScopedAdmin):
    organization = "event__organization"
    form = RegistrationForm
    list_display = ("user", "event", "ticket_tier")
    list_select_related = ("user", "event", "ticket_tier__event")
    search_fields = ("user__username", "user__email", "event__title")
    autocomplete_fields = ("event", "ticket_tier", "sessions")


@admin.register(Membership)
class MembershipAdmin(ScopedAdmin):
    organization = "organization"
    editors = adders = deleters = OWNERS
    list_display = ("user", "organization", "role")
    list_select_related = ("user", "organization")
    autocomplete_fields = ("organization",)


class CountriesField(forms.CharField):
    """Countries that parcels go to: codes or English names, separated by commas."""

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(value) if isinstance(value, list) else value

    def to_python(self, value: Any) -> Any:
        """The codes, each once; raises ``ValidationError`` that says what is meant instead."""
        codes = {name.casefold(): code for code, name in countries.names().items()}
        chosen, unknown = [], []
        for text in re.split(r"[,;\n]", super().to_python(value) or ""):
            given = " ".join(text.split())
            code = codes.get(given.casefold(), given.upper())
            if code in countries.SHIPPABLE:
                chosen.append(code)
            elif given:
                like = difflib.get_close_matches(given.casefold(), codes, n=1)
                meant = f" (did you mean {codes[like[0]]}?)" if like else ""
                unknown.append(f"{given}{meant}")
        if unknown:
            raise forms.ValidationError(
                f"Stripe asks no address for {', '.join(unknown)}: use the countries' two-letter "
                "codes or English names, separated by commas."
            )
        return list(dict.fromkeys(chosen))

    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            return bool(self.to_python(data) != (initial or []))
        except forms.ValidationError:
            return True


def _countries_help() -> str:
    every = ", ".join(f"{code} {name}" for code, name in countries.names().items())
    return format_html(
        "Where merchandise is sent to: codes or names, separated by commas, for example DE, AT, "
        "Switzerland. Empty: nowhere. <details><summary>All of them</summary>{}</details>",
        every,
    )


class OfferForm(forms.ModelForm):
    """The base of the admin's form, which adds the model and its fields."""

    shipping_countries = CountriesField(
        required=False,
        strip=True,
        help_text=lazy(_countries_help, str)(),
        widget=UnfoldAdminTextInputWidget,
    )

    def clean(self) -> dict[str, Any]:
        """Add the rules that need the stored offer or its targets to those of ``Offer.clean``."""
        data = super().clean() or {}
        if event := data.get("event"):
            wrong = targeting.foreign_targets(
                event, data.get("target_sessions", []), data.get("target_ticket_tiers", [])
            )
            for field, message in wrong.items():
                self.add_error(field, message)
        if not self.instance._state.adding:
            self._refuse_what_sales_forbid(data)
        return data

    def _refuse_what_sales_forbid(self, data: dict[str, Any]) -> None:
        # Locked until admin's transaction ends: nothing is sold between this check and the save.
        stored = inventory.lock(self.instance.pk)
        if "event" in self.changed_data:
            self.add_error("event", "An offer can't move to another event: make a new one there.")
        try:
            if data.get("price") is not None and data.get("currency"):
                stored.refuse_price_change(data["price"], data["currency"])
            stored.refuse_type_change(data.get("offer_type") or stored.offer_type)
            stored.refuse_total(data.get("inventory_total"))
        except DomainError as error:
            self.add_error(error.attr, str(error))


@admin.register(Offer)
class OfferAdmin(OfferFiles, OfferList, OfferActions, OfferHistoryPage, ScopedAdmin):
    organization = "event__organization"
    form = OfferForm
    formfield_overrides: ClassVar = {
        models.URLField: {"assume_scheme": "https", "widget": UnfoldAdminURLInputWidget}
    }
    actions: Any = (*OfferActions.actions, "export_csv", "export_xlsx")
    autocomplete_fields = ("event", "target_sessions", "target_ticket_tiers", "ticket_tier")
    readonly_fields = (
        "inventory_reserved", "inventory_sold", "stripe_product_id", "stripe_price_id",
        "created_at", "updated_at",
    )  # fmt: skip

    def _changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """One entry of the history for all that is saved with the form; Django has a transaction
        around it."""
        with history.together(reason="admin"):
            return super()._changeform_view(request, *args, **kwargs)  # type: ignore[misc]

    def save_model(self, request: HttpRequest, obj: Offer, form: Any, change: Any) -> None:
        """Save; an existing offer's stock is changed by ``offers.inventory``, under the lock."""
        with transaction.atomic():
            super().save_model(request, obj, form, change)
            if change and "inventory_total" in form.changed_data:
                inventory.set_total(offer_id=obj.pk, total=obj.inventory_total)

    def has_delete_permission(self, request: HttpRequest, obj: Offer | None = None) -> bool:
        """An offer is archived, never deleted: its sales must keep their record."""
        return False
