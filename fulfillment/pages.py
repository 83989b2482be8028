"""The attendee's page of one purchase: what became of it, and what there is to do."""

import uuid

from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from fulfillment import delivery
from fulfillment.models import Fulfillment
from purchases.models import Purchase
from purchases.viewsets import buyer


@never_cache
@login_required
@require_safe
def purchase_page(request: HttpRequest, purchase_id: uuid.UUID) -> HttpResponse:
    """What was bought, what was paid, and how to get it: content, code, tracking, time."""
    purchase = (
        Purchase.objects.filter(pk=purchase_id, user=buyer(request)).select_related("event").first()
    )
    if purchase is None:
        raise Http404
    fulfillment = Fulfillment.objects.filter(purchase=purchase).first()
    context: dict[str, object] = {"purchase": purchase, "fulfillment": fulfillment}
    if fulfillment is not None:
        fulfillment.purchase = purchase
        deliverer = delivery.DELIVERERS[fulfillment.type]
        context |= deliverer.page(fulfillment, now=timezone.now())
        context["how_to_get_it"] = f"fulfillment/{fulfillment.type.lower()}.html"
    return render(request, "purchase.html", context)
