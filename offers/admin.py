"""Plain admin pages; they write through the same functions as the API.

Who may do what on them is ``offers.scoped_admin``'s to say.
"""

from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.db import models, transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse

from offers import history, membership
from offers.errors import LastOwner
from offers.large_lists import is_autocomplete, is_uuid
from offers.meanwhile import MeanwhileForm, RowsMeanwhile
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
from offers.offer_page import OfferPage
from offers.scoped_admin import NOBODY, OWNERS, ScopedAdmin, ScopedInline

ROLES = (
    "Owner: everything, and who the members are. Manager: offers, refunds and delivery. Support: "
    "looks at everything and releases holds, and can't refund."
)


class MembershipForm(MeanwhileForm):
    """The base of the admin's form, which adds the model and its fields."""

    class Meta:
        help_texts: ClassVar = {"role": ROLES}

    def read_again(self) -> models.Model | None:
        if self.changed_data:
            # Before the membership's row: whoever deletes an owner takes them in this order.
            membership.lock(self.instance.organization_id)
        return super().read_again()

    def clean(self) -> dict[str, Any]:
        """Refuse to make the last owner something else, or of somewhere else."""
        data = super().clean()
        if self.instance._state.adding or not {"role", "organization"} & set(self.changed_data):
            return data
        try:
            membership.refuse_to_lose_the_owners(
                Membership.objects.values_list("organization", flat=True).get(pk=self.instance.pk),
                leaving=[self.instance.pk],
            )
        except LastOwner as refusal:
            self.add_error("role" if "role" in self.changed_data else None, str(refusal))
        return data


class MemberForm(MeanwhileForm):
    """A row of the members; the account is read with it, and not once more for its name."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.instance._state.adding:
            self.initial["user"] = self.instance.user


class MembershipFormSet(RowsMeanwhile):
    """The members on their organization's page: judged by what they are together."""

    def full_clean(self) -> None:
        """Judge them as they are under the lock: who is an owner by the page may be none by now."""
        if self.is_bound and self.instance.pk:
            membership.lock(self.instance.pk)
        super().full_clean()

    def clean(self) -> None:
        """Refuse a set without an owner where there was one."""
        super().clean()
        if not self.instance.pk or any(self.errors):
            return
        left = [form for form in self.forms if form not in self.deleted_forms]
        if any(form.cleaned_data.get("role") == Membership.Role.OWNER for form in left):
            return
        leaving = [form.instance.pk for form in self.initial_forms]
        try:
            membership.refuse_to_lose_the_owners(self.instance.pk, leaving=leaving)
        except LastOwner as refusal:
            raise forms.ValidationError(str(refusal)) from None


class MembershipInline(ScopedInline):
    model = Membership
    form = MemberForm
    fields = ("user", "role")
    formset = MembershipFormSet
    editors = adders = deleters = OWNERS
    verbose_name, verbose_name_plural = "member", "members"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Membership]:
        members: QuerySet[Membership] = super().get_queryset(request)
        return members.select_related("user")

    def formfield_for_dbfield(self, db_field: Any, request: Any, **kwargs: Any) -> Any:
        if db_field.name == "role":
            kwargs["help_text"] = ROLES
        return super().formfield_for_dbfield(db_field, request, **kwargs)


@admin.register(Organization)
class OrganizationAdmin(ScopedAdmin):
    organization = "pk"
    form = MeanwhileForm
    is_short = True
    editors = OWNERS
    adders = NOBODY
    list_display = ("name", "slug")
    ordering = ("name",)
    search_fields = ("name", "slug")
    prepopulated_fields: ClassVar = {"slug": ("name",)}
    inlines = (MembershipInline,)


class TimedForm(MeanwhileForm):
    """The base of admin's forms of what has a beginning and an end."""

    class Meta:
        labels: ClassVar = {"starts_at": "Starts at (UTC)", "ends_at": "Ends at (UTC)"}
        help_texts: ClassVar = {
            "slug": "Its name in addresses: small letters, digits and hyphens.",
            "organization": "Whose members look after it.",
        }

    def clean(self) -> dict[str, Any]:
        data = super().clean()
        starts_at, ends_at = data.get("starts_at"), data.get("ends_at")
        if starts_at and ends_at and ends_at < starts_at:
            self.add_error("ends_at", "This must not be before it starts.")
        return data


class EventSessionInline(ScopedInline):
    model = EventSession
    form = TimedForm
    formset = RowsMeanwhile
    verbose_name_plural = "sessions"
    fields = ("title", "slug", "starts_at", "ends_at")
    prepopulated_fields: ClassVar = {"slug": ("title",)}


class TicketTierInline(ScopedInline):
    model = TicketTier
    form = MeanwhileForm
    formset = RowsMeanwhile
    fields = ("title", "slug")
    prepopulated_fields: ClassVar = {"slug": ("title",)}


@admin.register(Event)
class EventAdmin(ScopedAdmin):
    organization = "organization"
    form = TimedForm
    fields = (
        "organization", "title", "slug", "description", "is_public", "starts_at", "ends_at",
    )  # fmt: skip
    is_short = True
    list_display = ("title", "slug", "organization", "is_public", "starts_at")
    ordering = ("title",)
    list_filter = ("is_public",)
    list_select_related = ("organization",)
    search_fields = ("title", "slug")
    autocomplete_fields = ("organization",)
    prepopulated_fields: ClassVar = {"slug": ("title",)}
    inlines = (EventSessionInline, TicketTierInline)


class OfOneEvent(ScopedAdmin):
    """Mixed into what other forms choose from: those of the event that the form is about.

    It stays that event's: offers and registrations of the event refer to it.
    """

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return super().get_readonly_fields(request, obj) if obj is None else ("event",)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet, search_term: str
    ) -> tuple[QuerySet, bool]:
        """Narrow a field's choices to ``?event=``, which ``within_event.js`` adds to its search."""
        event = request.GET.get("event", "")
        if is_autocomplete(request) and is_uuid(event):
            queryset = queryset.filter(event=event)
        return super().get_search_results(request, queryset, search_term)


@admin.register(EventSession)
class EventSessionAdmin(OfOneEvent):
    organization = "event__organization"
    form = TimedForm
    fields = ("event", "title", "slug", "starts_at", "ends_at")
    prepopulated_fields: ClassVar = {"slug": ("title",)}
    is_short = True
    list_display = ("title", "event", "starts_at")
    ordering = ("title",)
    list_select_related = ("event",)
    search_fields = ("title", "slug", "event__title")
    autocomplete_fields = ("event",)


@admin.register(TicketTier)
class TicketTierAdmin(OfOneEvent):
    organization = "event__organization"
    form = MeanwhileForm
    fields = ("event", "title", "slug")
    prepopulated_fields: ClassVar = {"slug": ("title",)}
    is_short = True
    list_display = ("title", "event")
    ordering = ("title",)
    list_select_related = ("event",)
    search_fields = ("title", "slug", "event__title")
    autocomplete_fields = ("event",)


class RegistrationForm(forms.ModelForm):
    """The base of the admin's form, which adds the model and its fields."""

    class Meta:
        help_texts: ClassVar = {
            "ticket_tier": "One of the event's own. A ticket upgrade moves its buyer to another.",
        }

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

    class Media:
        js = ("offers/within_event.js",)


@admin.register(Membership)
class MembershipAdmin(ScopedAdmin):
    organization = "organization"
    is_short = True
    editors = adders = deleters = OWNERS
    form = MembershipForm
    list_display = ("user", "organization", "role")
    list_select_related = ("user", "organization")
    autocomplete_fields = ("organization",)

    def delete_model(self, request: HttpRequest, obj: Membership) -> None:
        """Delete, or raise ``LastOwner``: the views below tell of it."""
        membership.refuse_to_lose_the_owners(obj.organization_id, leaving=[obj.pk])
        super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Membership]) -> None:
        chosen = list(queryset.order_by("organization"))
        for organization_id in dict.fromkeys(each.organization_id for each in chosen):
            membership.refuse_to_lose_the_owners(
                organization_id, leaving=[each.pk for each in chosen]
            )
        super().delete_queryset(request, queryset)

    def delete_view(self, request: HttpRequest, object_id: str, *args: Any) -> HttpResponse:
        try:
            return super().delete_view(request, object_id, *args)
        except LastOwner as refusal:
            messages.error(request, str(refusal))
            return redirect(reverse("admin:offers_membership_change", args=[object_id]))

    def changelist_view(self, request: HttpRequest, *args: Any) -> HttpResponse:
        """The list; what an action did before it was refused is undone, its log entries too."""
        try:
            with transaction.atomic():
                return super().changelist_view(request, *args)
        except LastOwner as refusal:
            messages.error(request, str(refusal))
            return redirect(request.get_full_path())


@admin.register(Offer)
class OfferAdmin(OfferFiles, OfferList, OfferActions, OfferHistoryPage, OfferPage):
    organization = "event__organization"
    is_short = True
    actions: Any = (*OfferActions.actions, "export_csv", "export_xlsx")

    def _changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """One entry of the history for all that is saved with the form; Django has a transaction
        around it."""
        with history.together(reason="admin"):
            return super()._changeform_view(request, *args, **kwargs)  # type: ignore[misc]  # not in the stubs

    def has_delete_permission(self, request: HttpRequest, obj: Offer | None = None) -> bool:
        """An offer is archived, never deleted: its sales must keep their record."""
        return False
