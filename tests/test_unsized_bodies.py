"""Bodies that come in pieces, through the real web server: none is taken for no body."""

import http.client
import json
import socket
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
        processes.start_web(workers=1, threads=1)
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


def say(shop: Processes, sale: Sale, *lines: str) -> bytes:
    """The start of a refund's request, word for word, and no more of it; returns the answer."""
    where = urlsplit(shop.url)
    head = [
        f"POST /api/v1/purchases/{sale.id}/refund/ HTTP/1.1",
        f"Host: {where.netloc}",
        *(f"{name}: {value}" for name, value in bearer(sale.member()).items()),
        "Content-Type: application/json",
        *lines,
    ]
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=30) as sent:
        sent.sendall("\r\n".join(head).encode())
        if "Connection: close" not in lines:  # or else the answer is waited for
            sent.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sent.recv(65536), b""))


def test_no_body_at_all_is_still_none(shop: Processes, sandbox: Any, client_of: Any) -> None:
    sale = Sale(sandbox, client_of)
    assert b" 202 " in say(shop, sale, "Connection: close", "", "")
    assert sale.purchase.status == "refunding"


@pytest.mark.parametrize("piece", [(), ("zz", "")], ids=["breaks off", "is nonsense"])
def test_body_that_was_announced_and_did_not_come_is_not_none(
    shop: Processes, sandbox: Any, client_of: Any, piece: tuple[str, ...]
) -> None:
    """For a refund, none means everything."""
    sale = Sale(sandbox, client_of)
    answer = say(shop, sale, "Transfer-Encoding: chunked", "", *piece, "")
    assert b" 202 " not in answer
    # Another request is answered after it by the only thread: that one is over.
    assert send(shop, "PATCH", f"/api/v1/offers/{sale.offer.pk}/", sale.member(), b"{}")[0] == 200
    assert not Refund.objects.exists()
    assert sale.purchase.status == "paid"


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
