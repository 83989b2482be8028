"""The organizer's pages about services: what is offered, the slots, and who comes when."""

import uuid
from collections.abc import Callable
from datetime import date
from itertools import groupby
from typing import Any, ClassVar, cast

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import models
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextareaWidget

from fulfillment.bookings import booking as bookings
from fulfillment.bookings import series
from fulfillment.bookings import spreadsheet as bookings_csv
from fulfillment.bookings.forms import DetailsForm, SeriesForm, SlotForm, SlotFormSet, TimeForm
from fulfillment.bookings.models import ServiceBooking, ServiceDetails, TimeSlot, details_of
from fulfillment.states import Status, Type
from offers import spreadsheet, staff_log
from offers.asking import question
from offers.errors import DomainError
from offers.models import Offer
from offers.scoped_admin import EDITORS, ScopedAdmin, ScopedInline, visible_to
from purchases.read_only_admin import ReadOnly

# Of the slots on an offer's page: Django takes at most a thousand fields in one form, and each
# slot has up to fifteen, with those that carry what was shown.
ON_AN_OFFERS_PAGE = 50


class ServiceDetailsInline(ScopedInline):
    model = ServiceDetails
    form = DetailsForm
    template = "admin/edit_inline/stacked.html"
    max_num = 1
    formfield_overrides: ClassVar = {
        models.TextField: {"widget": UnfoldAdminTextareaWidget(attrs={"rows": 4})}
    }


class TimeSlotInline(ScopedInline):
    """The next slots; all of them have a list of their own, to which the page leads."""

    model = TimeSlot
    form = SlotForm
    formset = SlotFormSet
    template = "admin/fulfillment/slots_inline.html"
    deleters = EDITORS
    fields = ("starts_at", "ends_at", "capacity", "taken", "is_called_off")
    readonly_fields = ("taken",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[TimeSlot]:
        slots: QuerySet[TimeSlot] = super().get_queryset(request)
        match = request.resolver_match
        offer_id = match.kwargs.get("object_id") if match else None
        # A form that was opened a while ago may send slots that have begun meanwhile.
        if request.method != "GET" or offer_id is None:
            return slots
        coming = slots.filter(offer=offer_id, ends_at__gt=timezone.now()).order_by("starts_at")
        return slots.filter(pk__in=list(coming.values_list("pk", flat=True)[:ON_AN_OFFERS_PAGE]))


@admin.register(TimeSlot)
class TimeSlotAdmin(ScopedAdmin):
    organization = "offer__event__organization"
    form = SlotForm
    deleters = EDITORS
    list_display = ("starts_at", "ends_at", "offer", "capacity", "taken", "is_called_off")
    list_filter = ("is_called_off", "offer__event")
    list_select_related = ("offer",)
    search_fields = ("offer__title", "offer__event__title")
    date_hierarchy = "starts_at"
    ordering = ("starts_at",)
    autocomplete_fields = ("offer",)
    fields = ("offer", "starts_at", "ends_at", "capacity", "taken", "is_called_off")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return ("taken",) if obj is None else ("offer", "taken")

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.series_view)
        own = path("series/<uuid:offer_id>/", view, name="fulfillment_timeslot_series")
        return [own, *super().get_urls()]

    def series_view(self, request: HttpRequest, offer_id: uuid.UUID) -> HttpResponse:
        """Ask for a series of slots, show how many these are, and add them."""
        services = visible_to(request, Offer, self.admin_site).filter(offer_type=Offer.Type.SERVICE)
        offer = services.filter(pk=offer_id).first()
        if offer is None:
            raise Http404
        if not visible_to(request, Offer, self.admin_site, roles=EDITORS).filter(pk=offer_id):
            raise PermissionDenied
        form = SeriesForm(
            request.POST if request.method == "POST" else None,
            initial={"length": details_of(offer).duration_minutes},
        )
        planned: list[Any] = []
        if form.is_valid():
            now = timezone.now()
            try:
                if "add" in request.POST:
                    count = series.add(offer.pk, form.series(), now=now)
                    staff_log.record(
                        cast("User", request.user), offer, message=f"Added {count} slots."
                    )
                    messages.success(request, f"{count} slots were added.")
                    return redirect(reverse("admin:offers_offer_change", args=[offer.pk]))
                planned = series.plan(form.series(), now=now)
            except DomainError as error:
                form.add_error(None, str(error))
        return question(
            request,
            opts=Offer._meta,
            title=f"Add a series of slots: {offer}",
            form=form,
            button="Preview",
            back=reverse("admin:offers_offer_change", args=[offer.pk]),
            original=offer,
            template="admin/fulfillment/series.html",
            variant="default" if planned else "primary",
            planned=planned,
            seats=len(planned) * (form.cleaned_data["capacity"] if planned else 0),
        )


def _day(booking: ServiceBooking) -> date | None:
    return booking.scheduled_at and booking.scheduled_at.date()


class ByStatus(admin.ChoicesFieldListFilter):
    """By the status of the fulfilment, which is of a service.

    It says so, too: PostgreSQL then knows how few there are, and doesn't look for them by walking
    through all bookings in order.
    """

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet | None:
        found = super().queryset(request, queryset)
        if found is None or not self.used_parameters:
            return found
        return found.filter(fulfillment__type=Type.SERVICE)


@admin.register(ServiceBooking)
class ServiceBookingAdmin(ReadOnly, ScopedAdmin):
    """Who comes when; those without a time come last, and have a filter."""

    organization = "fulfillment__purchase__event__organization"
    change_form_outer_before_template = "admin/fulfillment/booking_tools.html"
    list_display = ("when", "service", "attendee", "seats", "location", "status")
    list_display_links = ("when",)
    list_filter = (
        ("scheduled_at", admin.EmptyFieldListFilter),
        ("fulfillment__status", ByStatus),
        "fulfillment__purchase__event",
        "fulfillment__purchase__offer",
    )
    list_select_related = ("fulfillment__purchase__user",)
    search_fields = (
        "=fulfillment__purchase__id",
        "fulfillment__purchase__offer__title",
        "fulfillment__purchase__user__username",
        "fulfillment__purchase__user__email",
    )
    date_hierarchy = "scheduled_at"
    ordering = ("scheduled_at", "pk")
    actions = ("print_by_day", "export")
    fields = (
        "service", "attendee", "seats", "status", "slot", "scheduled_at", "ends_at", "location",
        "can_change_until", "reminded_for", "created_at", "changed_at",
    )  # fmt: skip
    readonly_fields = ("service", "attendee", "seats", "status")

    @admin.display(description="when", ordering="scheduled_at")
    def when(self, booking: ServiceBooking) -> str:
        return str(booking)

    @admin.display(description="service", ordering="fulfillment__purchase__offer_title")
    def service(self, booking: ServiceBooking) -> str:
        return booking.fulfillment.purchase.offer_title

    @admin.display(description="attendee", ordering="fulfillment__purchase__user__username")
    def attendee(self, booking: ServiceBooking) -> str:
        user = booking.fulfillment.purchase.user
        return user.get_full_name() or user.get_username()

    @admin.display(description="seats")
    def seats(self, booking: ServiceBooking) -> int:
        return booking.fulfillment.purchase.quantity

    @display(
        description="status",
        ordering="fulfillment__status",
        label={"to be booked": "warning", "booked": "success", "revoked": "danger"},
    )
    def status(self, booking: ServiceBooking) -> str:
        names = {Status.PROCESSING: "to be booked", Status.FULFILLED: "booked"}
        status = booking.fulfillment.status
        return names.get(Status(status), status.lower())

    @admin.action(description="Print by day", permissions=["view"])
    def print_by_day(self, request: HttpRequest, chosen: QuerySet[ServiceBooking]) -> HttpResponse:
        """A page without anything around it, a table a day."""
        found = chosen.select_related("fulfillment__purchase__user").order_by("scheduled_at", "pk")
        days = groupby(found, key=_day)
        context = {
            **self.admin_site.each_context(request),
            "title": "Bookings",
            "days": [(day, list(of_the_day)) for day, of_the_day in days],
        }
        return TemplateResponse(request, "admin/fulfillment/bookings_by_day.html", context)

    @admin.action(description="Export as CSV", permissions=["view"])
    def export(self, request: HttpRequest, chosen: QuerySet[ServiceBooking]) -> HttpResponse:
        found = chosen.select_related("fulfillment__purchase__user").order_by("scheduled_at", "pk")
        return spreadsheet.response(bookings_csv.table(found), name="bookings.csv")

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        context["may_set_time"] = self.allows(request, EDITORS, kwargs.get("obj"))
        return super().render_change_form(request, context, *args, **kwargs)

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.time_view)
        own = path("<path:object_id>/time/", view, name="fulfillment_servicebooking_time")
        return [own, *super().get_urls()]

    def time_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Set the time of one booking, in a slot or beside all of them, or cancel it."""
        booking = self.get_object(request, object_id)
        if booking is None:
            raise Http404
        if not self.allows(request, EDITORS, booking):
            raise PermissionDenied
        form = TimeForm(request.POST if request.method == "POST" else None, booking=booking)
        change = self._asked_for(request, form, booking)
        if change is not None:
            try:
                changed = change()
            except DomainError as error:
                form.add_error(error.attr, str(error))
            else:
                done = "Booked" if changed.scheduled_at else "Cancelled"
                staff_log.record(cast("User", request.user), booking, message=f"{done}: {changed}.")
                messages.success(request, f"{done}: {changed}. The attendee is told by e-mail.")
                return redirect(
                    reverse("admin:fulfillment_servicebooking_change", args=[booking.pk])
                )
        purchase = booking.fulfillment.purchase
        now = f"{booking}" if booking.scheduled_at else "no time yet"
        return question(
            request,
            opts=self.opts,
            title=f"Set the time of {purchase}",
            form=form,
            button="Set this time",
            back=reverse("admin:fulfillment_servicebooking_change", args=[booking.pk]),
            explanation=f"{purchase}, bought by {purchase.user}: {now}. The attendee gets an "
            "e-mail with what you choose, and an invitation for their calendar.",
            original=booking,
            template="admin/fulfillment/set_time.html",
        )

    def _asked_for(
        self, request: HttpRequest, form: TimeForm, booking: ServiceBooking
    ) -> Callable[[], ServiceBooking] | None:
        """What the form that was sent asks for; nothing while it makes no sense."""
        who: dict[str, Any] = {
            "fulfillment_id": booking.fulfillment_id,
            "actor": cast("User", request.user),
            "now": timezone.now(),
        }
        if request.method == "POST" and "cancel" in request.POST:
            form.is_valid()
            return lambda: bookings.call_off(**who)
        if not form.is_valid():
            return None
        data = form.cleaned_data
        if data["slot"]:
            return lambda: bookings.put_into(slot_id=data["slot"].pk, **who)
        return lambda: bookings.set_time(
            starts_at=data["starts_at"], ends_at=data["ends_at"], location=data["location"], **who
        )
