"""Bodies that come in pieces, through the real web server: none is taken for no body."""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.conf import settings

from offers.models import Offer
from purchases.models import Purchase, Refund
from tests.factories import MembershipFactory, OfferFactory
from tests.service_processes import Processes, bearer, own_database_url
from tests.test_refunds import Sale

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def shop(sandbox: Any, tmp_path: Path, settings: Any) -> Iterator[Processes]:
    processes = Processes(
        tmp_path,
        DATABASE_URL=own_database_url(),
        REDIS_URL=settings.REDIS_URL,
        LOCAL_RUN="True",
        SECRET_KEY=settings.SECRET_KEY,
        STRIPE_API_BASE=settings.STRIPE_API_BASE,
        STRIPE_SECRET_KEY=settings.STRIPE_SECRET_KEY,
    )
    try:
        processes.start_web(workers=1)
        processes.wait_until_up()
        yield processes
    finally:
        processes.stop()


def send(shop: Processes, method: str, path: str, user: Any, *pieces: bytes) -> tuple[int, Any]:
    """A request whose body comes chunked, and its answer."""
    connection = http.client.HTTPConnection(urlsplit(shop.url).netloc, timeout=30)
    headers = {**bearer(user), "Content-Type": "application/json"}
    if pieces:
        headers["Transfer-Encoding"] = "chunked"
    connection.request(method, path, iter(pieces) if pieces else None, headers, encode_chunked=True)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, json.loads(body)


def test_body_in_pieces_is_the_same_as_in_one(
    shop: Processes, sandbox: Any, client_of: Any
) -> None:
    sale = Sale(sandbox, client_of)
    path = f"/api/v1/purchases/{sale.id}/refund/"
    pieces = (b'{"amount": "10.00", ', b'"reason": "wrong size"}')

    status, purchase = send(shop, "POST", path, sale.member(), *pieces)

    assert (status, purchase["status"]) == (202, "paid")
    refund = Refund.objects.get()
    assert (str(refund.amount), refund.reason) == ("10.000", "wrong size")


def test_no_body_at_all_is_still_none(shop: Processes, sandbox: Any, client_of: Any) -> None:
    sale = Sale(sandbox, client_of)
    status, purchase = send(shop, "POST", f"/api/v1/purchases/{sale.id}/refund/", sale.member())
    assert (status, purchase["status"]) == (202, "refunding")


def test_change_in_pieces_is_made(shop: Processes) -> None:
    offer = OfferFactory()
    member = MembershipFactory(organization=offer.event.organization).user
    path = f"/api/v1/offers/{offer.pk}/"
    status, changed = send(shop, "PATCH", path, member, b'{"title"', b': "In pieces"}')
    assert (status, changed["title"]) == (200, "In pieces")
    assert Offer.objects.get().title == "In pieces"


def test_more_than_is_read_is_refused_and_nothing_done(
    shop: Processes, sandbox: Any, client_of: Any
) -> None:
    sale = Sale(sandbox, client_of)
    path = f"/api/v1/purchases/{sale.id}/refund/"
    pieces = [b'{"reason": "'] + [b"x" * 100_000] * 30
    assert sum(map(len, pieces)) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE

    status, answer = send(shop, "POST", path, sale.member(), *pieces, b'"}')

    assert (status, answer["errors"][0]["code"]) == (413, "request_too_large")
    assert not Refund.objects.exists()
    assert Purchase.objects.get().status == "paid"
