"""The attendee's forms about a booking, and its entry for their calendar."""

import uuid

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.forms import UUIDField
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from fulfillment.bookings import booking as bookings
from fulfillment.bookings import invitation
from fulfillment.bookings.models import ServiceBooking
from purchases.page_refusals import telling_why_not
from purchases.viewsets import buyer


def _back(purchase_id: uuid.UUID) -> HttpResponse:
    return redirect("purchase-page", purchase_id=purchase_id)


@login_required
@require_POST
@telling_why_not(_back)
def book(request: HttpRequest, purchase_id: uuid.UUID) -> HttpResponse:
    """The Book and Move buttons."""
    if not request.POST.get("slot"):
        messages.error(request, "Choose a time first.")
        return _back(purchase_id)
    booked = bookings.pick(
        purchase_id=purchase_id,
        user=buyer(request),
        slot_id=UUIDField().clean(request.POST["slot"]),
        now=timezone.now(),
        source="page",
    )
    messages.success(request, f"Booked: {booked}. An invitation for your calendar is on its way.")
    return _back(purchase_id)


@login_required
@require_POST
@telling_why_not(_back)
def cancel(request: HttpRequest, purchase_id: uuid.UUID) -> HttpResponse:
    """The Cancel button of a booking; what was bought stays bought."""
    bookings.cancel(purchase_id=purchase_id, user=buyer(request), now=timezone.now(), source="page")
    messages.success(request, "Cancelled. You can choose another time.")
    return _back(purchase_id)


@never_cache
@login_required
@require_safe
def calendar_entry(request: HttpRequest, purchase_id: uuid.UUID) -> HttpResponse:
    """The booking as a file that calendars open; nothing while there is no time."""
    booked = (
        ServiceBooking.objects.filter(
            fulfillment__purchase=purchase_id, fulfillment__purchase__user=buyer(request)
        )
        .select_related("fulfillment__purchase__event__organization", "fulfillment__purchase__user")
        .first()
    )
    if booked is None or booked.scheduled_at is None or not booked.fulfillment.is_handed_out:
        raise Http404
    return HttpResponse(
        invitation.write(booked, method="PUBLISH", now=timezone.now()),
        # https://www.rfc-editor.org/rfc/rfc5545#section-8.1
        content_type="text/calendar; charset=utf-8; method=PUBLISH",
        headers={"Content-Disposition": 'attachment; filename="booking.ics"'},
    )
