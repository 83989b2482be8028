"""Forms of the attendee's pages: a refusal is told on a page, and not by a status alone."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError as FormError
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from rest_framework import serializers

from offers.errors import Busy, DomainError, database_is_busy
from offers.throttling import PurchasesPerAddress, PurchasesPerUser
from purchases.errors import IdempotencyKeyInUse
from purchases.models import Purchase
from purchases.states import Status

View = Callable[..., HttpResponse]


def telling_why_not(back_to: Callable[..., HttpResponse]) -> Callable[[View], View]:
    """A form whose refusal is shown on the page that ``back_to`` leads to."""

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            try:
                return view(request, *args, **kwargs)
            except DomainError as refusal:
                messages.error(request, str(refusal))
            except OperationalError as error:
                if not database_is_busy(error):
                    raise
                messages.error(request, Busy.message)
            except FormError:
                messages.error(request, _("This form is damaged: load the page again."))
            except serializers.ValidationError as refusal:
                fields: Any = refusal.detail
                for reasons in fields.values():
                    messages.error(request, " ".join(reasons))
            return back_to(*args, **kwargs)

        return guarded

    return decorate


def too_many_tries(request: HttpRequest) -> bool:
    """Count an attempt to buy; true after telling who made one too many how long to wait."""
    for limit in (PurchasesPerUser(), PurchasesPerAddress()):
        if not limit.allow_request(request, None):
            seconds = round(limit.wait())
            said = ngettext(
                "Too many tries: wait %(seconds)d second.",
                "Too many tries: wait %(seconds)d seconds.",
                seconds,
            )
            messages.error(request, said % {"seconds": seconds})
            return True
    return False


def on_to_paying(request: HttpRequest, start: Callable[[], Purchase]) -> HttpResponse:
    """Start a purchase and lead to Stripe's page, or to its own where there is nothing to pay."""
    try:
        purchase = start()
    except IdempotencyKeyInUse:
        messages.info(request, _("You pressed Buy twice: your purchase is being prepared."))
        return redirect("purchases-page")
    if purchase.status == Status.AWAITING_PAYMENT:
        return redirect(purchase.checkout_url)
    return redirect("purchase-page", purchase_id=purchase.pk)
