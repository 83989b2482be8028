"""Access codes: read from a file, taken into an offer's pool, given once each.

Whatever changes a pool first locks the offer's ``DigitalContent``. Locking the codes themselves
would not do: of two workers the second either waits for the very codes that the first is giving
away, and then has too few, or skips them and may find a pool empty that isn't, because the first
rolls back. Lock order: the purchase, its fulfilment, the content. Nobody who holds the content asks
for a fulfilment, so ``retry_offer`` comes after the commit.
"""

import csv
import io
import uuid
from collections.abc import Iterable, Iterator
from datetime import datetime

from django.db import models, transaction
from django.db.models import Case, Count, Q, QuerySet, Value, When

from fulfillment.digital.errors import CodesRefused
from fulfillment.digital.models import AccessCode, DigitalContent
from fulfillment.errors import CannotDeliver
from fulfillment.models import Fulfillment
from fulfillment.states import Status
from offers import spreadsheet
from offers.contention import retried
from purchases.activity import alert

MOST = 100_000
LONGEST = 200
BATCH = 5_000
# A part of what the pool had after the last import.
RUNNING_LOW = 10
HEADERS = frozenset(
    "code codes access_code access_codes voucher vouchers coupon coupons key keys".split()
)


class State(models.TextChoices):
    """What became of a code; ``with_state`` reads it from its fulfilment."""

    FREE = "free"
    GIVEN = "given"
    REVOKED = "revoked", "given, then revoked"


# What `with_state` tells, for a filter that needn't work it out for every code there is.
FOUND: dict[str, Q] = {
    State.FREE: Q(fulfillment__isnull=True),
    State.GIVEN: Q(fulfillment__isnull=False) & ~Q(fulfillment__status=Status.REVOKED),
    State.REVOKED: Q(fulfillment__status=Status.REVOKED),
}


def with_state(codes: QuerySet) -> QuerySet:
    """Add ``state``, for admin."""
    state = Case(
        When(fulfillment__isnull=True, then=Value(State.FREE.value)),
        When(fulfillment__status=Status.REVOKED, then=Value(State.REVOKED.value)),
        default=Value(State.GIVEN.value),
    )
    known: QuerySet = codes.annotate(state=state)
    return known


def counted(offer_id: uuid.UUID) -> dict[str, int]:
    """How many codes of an offer are at each ``State``."""
    codes = with_state(AccessCode.objects.filter(offer_id=offer_id)).order_by()
    found = dict(codes.values_list("state").annotate(Count("pk")))
    return {state.value: found.get(state.value, 0) for state in State}


# -- Giving them ----------------------------------------------------------------------------------


def give(fulfillment: Fulfillment, *, quantity: int, now: datetime) -> list[AccessCode]:
    """The fulfilment's ``quantity`` codes: those it has already, and free ones for the rest.

    Called by the deliverer under the locks of the purchase and the fulfilment; locks the content.
    Raises ``CannotDeliver`` if the pool has too few, and takes none then.
    """
    offer_id = fulfillment.purchase.offer_id
    content = DigitalContent.objects.select_for_update(no_key=True).get(offer_id=offer_id)
    given = list(fulfillment.access_codes.all())
    missing = quantity - len(given)
    if missing <= 0:
        return given
    free = AccessCode.objects.filter(offer_id=offer_id, fulfillment=None).order_by("pk")
    taken = list(free[:missing])
    if len(taken) < missing:
        raise CannotDeliver(
            f"{missing} access codes are needed and the pool has {len(taken)}: import more on "
            "the offer's page."
        )
    AccessCode.objects.filter(pk__in=[code.pk for code in taken]).update(
        fulfillment=fulfillment, given_at=now
    )
    _tell_if_running_low(content, free, fulfillment)
    return given + taken


def _tell_if_running_low(
    content: DigitalContent, free: QuerySet[AccessCode], fulfillment: Fulfillment
) -> None:
    if content.running_low_at is None:
        return
    left = free[: content.running_low_at + 1].count()
    if left <= content.running_low_at:
        content.running_low_at = None
        content.save(update_fields=["running_low_at"])
        transaction.on_commit(
            lambda: alert("access_codes_running_low", fulfillment.purchase, left=left)
        )


# -- Taking them in -------------------------------------------------------------------------------


def read(text: str | bytes) -> list[tuple[int, str]]:
    """The codes of a CSV file or of pasted lines, each with the number of its line.

    The first column counts; a first line that only names it is left out, and so are empty lines at
    the end. Raises ``CodesRefused`` with everything that is wrong.
    """
    found: list[tuple[int, str]] = []
    problems: list[str] = []
    lines: dict[str, int] = {}
    for line, cell in _cells(_decoded(text)):
        if not found and not problems and cell.casefold().replace(" ", "_") in HEADERS:
            continue
        wrong = _wrong_with(cell) or (cell in lines and f"the same code as in line {lines[cell]}")
        if wrong:
            problems.append(f"Line {line}: {wrong}.")
        lines.setdefault(cell, line)
        found.append((line, cell))
        if len(found) > MOST:
            raise CodesRefused([f"There are more than {MOST:,} codes: import them in parts."])
    if problems:
        raise CodesRefused(problems)
    if not found:
        raise CodesRefused(["There is no code in it."])
    return found


def _decoded(text: str | bytes) -> str:
    if isinstance(text, str):
        return text.removeprefix("\ufeff").rstrip()
    try:
        return text.decode("utf-8-sig").rstrip()
    except UnicodeDecodeError as error:
        line = text[: error.start].count(b"\n") + 1
        problem = f"Line {line}: this isn't UTF-8. Save the file as “CSV UTF-8”."
        raise CodesRefused([problem]) from None


def _cells(text: str) -> Iterator[tuple[int, str]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            yield reader.line_num, row[0].strip() if row else ""
    except csv.Error as error:
        problem = f"Line {reader.line_num}: this isn't CSV ({error})."
        raise CodesRefused([problem]) from None


def _wrong_with(code: str) -> str | None:
    if not code:
        return "no code"
    if len(code) > LONGEST:
        return f"longer than {LONGEST} characters"
    # Else a file with other separators would give each buyer a whole row of it.
    if ";" in code or "\t" in code:
        return "a semicolon or a tab in the code: separate columns by commas"
    if not code.isprintable():
        return "characters that can't be seen"
    return None


@retried
def take_in(offer_id: uuid.UUID, codes: Iterable[tuple[int, str]]) -> int:
    """Put codes, as ``read`` found them, into the pool: all or none. Returns how many.

    Called by admin, outside any transaction; locks the content, makes one if there is none yet, and
    has its buyers get codes from now on. Raises ``CodesRefused`` for those the pool has had before.
    """
    wanted = list(codes)
    with transaction.atomic():
        DigitalContent.objects.get_or_create(offer_id=offer_id)
        content = DigitalContent.objects.select_for_update(no_key=True).get(offer_id=offer_id)
        known = _known(offer_id, [code for _, code in wanted])
        if known:
            raise CodesRefused(
                [
                    f"Line {line}: the pool has had this code already."
                    for line, code in wanted
                    if code in known
                ]
            )
        AccessCode.objects.bulk_create(
            (AccessCode(offer_id=offer_id, code=code) for _, code in wanted), batch_size=BATCH
        )
        free = AccessCode.objects.filter(offer_id=offer_id, fulfillment=None).count()
        content.gives_access_codes, content.running_low_at = True, free // RUNNING_LOW
        content.save(update_fields=["gives_access_codes", "running_low_at"])
    return len(wanted)


def _known(offer_id: uuid.UUID, codes: list[str]) -> set[str]:
    pool = AccessCode.objects.filter(offer_id=offer_id)
    return {
        code
        for start in range(0, len(codes), BATCH)
        for code in pool.filter(code__in=codes[start : start + BATCH]).values_list(
            "code", flat=True
        )
    }


@retried
def delete_free(offer_id: uuid.UUID, codes: Iterable[int]) -> int:
    """Delete those of the codes that are free; returns how many. What was given stays on record.

    Called by admin; locks the content, because a worker may be about to give them. (As one DELETE,
    which this is now, it would wait for the worker and look again; Django may split it one day.)
    """
    with transaction.atomic():
        DigitalContent.objects.select_for_update(no_key=True).filter(offer_id=offer_id).first()
        _, deleted = AccessCode.objects.filter(
            offer_id=offer_id, fulfillment=None, pk__in=list(codes)
        ).delete()
    return deleted.get("fulfillment.AccessCode", 0)


# -- Writing them down ----------------------------------------------------------------------------


def given_as_csv(offer_id: uuid.UUID) -> str:
    """Every code that was given, whom to and when, for the organizer's own records."""
    codes = with_state(AccessCode.objects.filter(offer_id=offer_id, fulfillment__isnull=False))
    rows = codes.order_by("given_at", "pk").values_list(
        "code",
        "state",
        "given_at",
        "fulfillment__purchase",
        "fulfillment__purchase__user__username",
    )
    columns = ("code", "state", "given_at", "purchase", "buyer")
    return spreadsheet.table(
        columns,
        (
            (code, state, given_at.isoformat(), purchase, buyer)
            for code, state, given_at, purchase, buyer in rows.iterator(chunk_size=BATCH)
        ),
    )
