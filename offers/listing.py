"""The API's list of offers, as it is sent: what thousands may ask for at the same moment."""

import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from django.db import connection
from django.http import HttpResponse
from django.utils import timezone
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from offers import targeting
from offers.listed_offers import ListedOffers, registered_at, shown
from offers.models import EventSession
from offers.pagination import NewestFirst
from offers.shared_reads import SharedReads


@dataclass(frozen=True, slots=True)
class Page:
    """One page, written, and which offers are on it: their ids and placements."""

    body: bytes
    etag: str
    shown: tuple[tuple[str, str], ...]

    def response(self) -> HttpResponse:
        """The page as an answer, with its validator."""
        answer = HttpResponse(self.body, content_type="application/json")
        answer.headers["ETag"] = self.etag
        return answer


_pages: SharedReads[Page] = SharedReads()


def page(request: Request, wanted: Mapping[str, Any]) -> Page:
    """The page that ``request`` asks for, as of now; called by ``GET offers/``.

    ``wanted`` is a valid ``OfferQuery``. Callers who may see the same share two queries (three with
    a session), or one where each had to be looked up anyway. Raises ``EventNotFound``,
    ValidationError for a session that isn't one of the event, NotFound for a cursor that is none.
    """
    caller, slug = request.user, wanted["event"]
    # The links to other pages are made of this one's address, down to the name of the host.
    address = (request.scheme, request.get_host(), request.get_full_path())
    if not caller.is_authenticated:
        _give_connection_back()
        return _pages.get(
            address,
            lambda: _read(request, wanted, targeting.visible_event(caller, slug).pk, None),
        )
    registered = registered_at(slug, caller.pk)
    event_id, place = registered or (targeting.visible_event(caller, slug).pk, None)
    _give_connection_back()
    return _pages.get((*address, event_id, place), lambda: _read(request, wanted, event_id, place))


def _give_connection_back() -> None:
    """Nobody waits for another's reading with a connection in hand that the other may need."""
    if not connection.in_atomic_block:
        connection.close()


def _read(
    request: Request, wanted: Mapping[str, Any], event_id: uuid.UUID, place: targeting.Place | None
) -> Page:
    slug, session = wanted["event"], wanted.get("session") or None
    if session and not EventSession.objects.filter(event=event_id, slug=session).exists():
        raise ValidationError({"session": f"The event {slug} has no session {session}."})
    offers = ListedOffers(
        event_id, place, timezone.now(), session=session, placement=wanted.get("placement") or None
    )
    paginator = NewestFirst()
    rows: Any = paginator.paginate_queryset(offers, request)  # type: ignore[arg-type]  # no QuerySet
    body = as_json(
        {
            "next": paginator.get_next_link(),
            "previous": paginator.get_previous_link(),
            "results": [shown(row, slug) for row in rows],
        }
    )
    return Page(
        body=body,
        etag=f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"',
        shown=tuple((str(row["id"]), row["placement"]) for row in rows),
    )


def as_json(body: Any) -> bytes:
    """``body`` as DRF's JSONRenderer writes it, at a tenth of the cost."""
    written = orjson.dumps(body, option=orjson.OPT_UTC_Z)
    for separator in ("\u2028", "\u2029"):  # which end a line in JavaScript before 2019
        written = written.replace(separator.encode(), f"\\u{ord(separator):04x}".encode())
    return written
