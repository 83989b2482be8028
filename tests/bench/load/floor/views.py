"""Bare views: no middleware, no authentication, no limits, no log, no choice of what to answer."""

import json

from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from tests.bench.load.floor.models import Sale, Stock


def ready(request: HttpRequest) -> HttpResponse:
    """Whether it is up."""
    return HttpResponse()


def sell(request: HttpRequest, stock_id: int) -> HttpResponse:
    """Sell one unit: the row locked, written, and a sale inserted, by the ORM."""
    with transaction.atomic():
        stock = Stock.objects.select_for_update().get(pk=stock_id)
        if stock.sold >= stock.total:
            return _json(409, {"code": "sold_out"})
        stock.sold += 1
        stock.save(update_fields=["sold"])
        sale = Sale.objects.create(stock=stock, buyer=1, quantity=1, created_at=timezone.now())
    return _json(201, {"id": sale.pk, "stock": stock.name, "quantity": 1})


def refuse(request: HttpRequest, stock_id: int) -> HttpResponse:
    """Read the row of what is sold out, without its lock, and say so."""
    stock = Stock.objects.get(pk=stock_id)
    if stock.sold < stock.total:
        return _json(200, {"left": stock.total - stock.sold})
    return _json(409, {"code": "sold_out", "detail": f"{stock.name} is sold out."})


def _json(status: int, body: dict[str, object]) -> HttpResponse:
    text = json.dumps(body).encode()
    return HttpResponse(
        text,
        status=status,
        content_type="application/json",
        headers={"Content-Length": str(len(text))},
    )
