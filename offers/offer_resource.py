"""Offers as a spreadsheet: what is written into one, and what is taken back from one.

The columns have the names of the API's fields, and what a row may say is ``OfferSerializer``'s to
judge: nothing is ruled here that the API doesn't rule as well.
"""

import uuid
from collections.abc import Callable
from datetime import UTC, timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.db import OperationalError
from django.db.models import QuerySet
from django.utils.dateparse import parse_datetime
from django.utils.html import format_html, format_html_join
from import_export.fields import Field
from import_export.instance_loaders import BaseInstanceLoader
from import_export.resources import Resource
from import_export.results import Error, Result, RowResult
from rest_framework import serializers

from offers import history, imported_files, inventory
from offers.errors import Busy, DomainError, database_is_busy
from offers.models import Event, Offer
from offers.offer_columns import (
    COLUMNS,
    LISTS,
    NULL_IF_EMPTY,
    ONLY_WRITTEN,
    moment_text,
    same,
    text_of,
)
from offers.serializers import EventBySlug, OfferSerializer
from offers.spreadsheet import cell, uncell

# So many offers are locked until all are written: three seconds, in which their buyers wait.
MOST_CHANGED = 300


class OwnEvent(EventBySlug):
    """The slug of an event that the caller manages; the others need not be known to exist."""

    def to_internal_value(self, data: Any) -> Event:
        slug = serializers.SlugField().run_validation(data)
        event: Event | None = self.context["events"].get(slug)
        if event is None:
            raise serializers.ValidationError(f"There is no event {slug} that you manage.")
        return event


class OfferRow(OfferSerializer):
    source_name = "import"
    event = OwnEvent("slug", queryset=Event.objects.all())


class ImportResult(Result):
    """What is shown of the rows: their titles and what would change, not 26 columns."""

    def append_invalid_row(self, number: int, row: Any, validation_error: Any) -> None:
        """Number the row as the file does, whose first row names the columns."""
        shown = {name: uncell(text_of(row.get(name))) for name in ("title", "event")}
        super().append_invalid_row(number + 1, shown, validation_error)


class Told(Error):
    """What went wrong, for organizers: without a traceback."""

    def __init__(self, error: Any, row: Any = None, number: Any = None) -> None:
        super().__init__(error, row=row, number=number)
        self.traceback = ""


class OfferSheet(Resource):
    """Writes offers into a file, and reads a file: all of it, or nothing.

    ``offers`` and ``events`` are those that the caller owns or manages. Every row is judged first,
    without a lock; only then, and only if all may be, they are written, each under its offer's lock
    and judged again. So nobody who buys waits while a file is read.

    A preview fills ``shown``: offer that would change -> when it was changed last. A confirmation
    has the preview's ``shown`` and ``nonce``, and writes what was shown or nothing.
    """

    class Meta:
        model = Offer
        chunk_size = 1000
        report_skipped = False
        instance_loader_class = BaseInstanceLoader

    def __init__(
        self,
        *,
        offers: QuerySet[Offer] = Offer.objects.none(),  # noqa: B008 - nothing, never filled
        events: QuerySet[Event] = Event.objects.none(),  # noqa: B008 - as above
        context: dict[str, Any] | None = None,
        shown: dict[str, str] | None = None,
        nonce: uuid.UUID | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.fields = {name: Field(column_name=name) for name in COLUMNS}
        self.offers, self.events, self.context = offers, events, context or {}
        self.shown, self.nonce = {} if shown is None else shown, nonce
        self.stored: dict[str, Offer] = {}
        self.changing = 0
        self.seen: set[str] = set()
        self.accepted: list[tuple[int, Any, OfferRow, RowResult]] = []

    @classmethod
    def get_display_name(cls) -> str:
        return "Offers"

    # -- Writing ----------------------------------------------------------------------------------

    def filter_export(self, queryset: Any, **kwargs: Any) -> Any:
        return _whole(queryset)

    def export_field(self, field: Any, instance: Offer, **kwargs: Any) -> str:
        return cell(text_of(COLUMNS[field.column_name](instance)))

    # -- Reading ----------------------------------------------------------------------------------

    @classmethod
    def get_result_class(cls) -> type[Result]:
        return ImportResult

    @classmethod
    def get_error_result_class(cls) -> type[Error]:
        return Told

    def get_diff_headers(self) -> list[str]:
        return ["title", "event", "changes"]

    def before_import(self, dataset: Any, **kwargs: Any) -> None:
        """Read all that the rows name with one query each, instead of one a row."""
        keys = [key for each in _column(dataset, "id") if (key := _uuid(each)) is not None]
        found = _whole(self.offers.filter(pk__in=keys))
        self.stored = {str(offer.pk): offer for offer in found}
        events = self.events.filter(slug__in=set(_column(dataset, "event")))
        self.context["events"] = {event.slug: event for event in events}

    def import_row(self, row: Any, instance_loader: Any, **kwargs: Any) -> RowResult:
        """Judge one row; what was accepted is written once all have been."""
        given = {name: uncell(text_of(value)) for name, value in row.items()}
        result = self.get_row_result_class()()
        result.import_type = RowResult.IMPORT_TYPE_SKIP
        if not any(given.values()) or self.changing > MOST_CHANGED:
            return result
        try:
            offer, changed = self._changed(given)
            if offer is not None and not changed:
                return result
            serializer = self._judged(offer, changed)
        except ValidationError as error:
            result.import_type = RowResult.IMPORT_TYPE_INVALID
            result.validation_error = error
            return result
        if offer is not None and not _differs(offer, serializer.validated_data):
            return result
        result.import_type = (
            RowResult.IMPORT_TYPE_NEW if offer is None else RowResult.IMPORT_TYPE_UPDATE
        )
        if offer is not None:
            self.changing += 1
            if self.nonce is None:
                self.shown[str(offer.pk)] = moment_text(offer.updated_at)
        result.diff = _diff(offer, given, changed)
        self.accepted.append((kwargs["row_number"], row, serializer, result))
        return result

    def after_import(self, dataset: Any, result: Any, **kwargs: Any) -> None:
        """Write what was accepted, if all was; import-export undoes it all if one is refused.

        Raises ``ImportedAlready``, of what this preview was confirmed with before.
        """
        if self.changing > MOST_CHANGED:
            said = f"A file may change at most {MOST_CHANGED} offers: import it in parts."
            result.append_base_error(Told(ValueError(said)))
        if self.nonce is None or result.has_errors() or result.has_validation_errors():
            return
        imported_files.claim(self.nonce, now=self.context["now"])
        with history.together(reason=f"import of {kwargs.get('file_name') or 'a file'}"):
            # New ones first, which lock nothing; the others in the order of every other statement
            # that locks several.
            for number, row, serializer, of_row in sorted(self.accepted, key=_key):
                try:
                    if serializer.instance is not None:
                        self._refuse_unlike_shown(inventory.lock(serializer.instance.pk))
                    of_row.instance = serializer.save()
                except DomainError as refusal:
                    refused = ValidationError({refusal.attr or "__all__": str(refusal)})
                    result.append_invalid_row(number, row, refused)
                except ValidationError as error:
                    result.append_invalid_row(number, row, error)
                except serializers.ValidationError as error:
                    result.append_invalid_row(number, row, ValidationError(_flat(error.detail)))

    def _refuse_unlike_shown(self, offer: Offer) -> None:
        """Raise for what somebody changed since the preview: that was decided on what it showed."""
        if self.nonce is not None and self.shown.get(str(offer.pk)) != moment_text(
            offer.updated_at
        ):
            at = moment_text(offer.updated_at)
            raise ValidationError({"updated_at": f"It was changed since the preview (at {at})."})

    def handle_import_error(self, result: Any, error: Any, raise_errors: Any = None) -> None:
        """Tell of a lock that wasn't had; anything else is a fault of ours, which is logged."""
        if not (isinstance(error, OperationalError) and database_is_busy(error)):
            raise error
        super().handle_import_error(result, Busy(), raise_errors)

    def _changed(self, given: dict[str, str]) -> tuple[Offer | None, dict[str, str]]:
        """The offer that a row is about, if any, and the cells that say something else than it."""
        wanted = {name: text for name, text in given.items() if name not in ONLY_WRITTEN}
        key = wanted.pop("id", "").strip()
        if not key:
            if wanted.pop("is_archived", "").lower() not in ("", "false", "0"):
                raise ValidationError({"is_archived": "A new offer isn't archived."})
            return None, wanted
        offer = self.stored.get(str(_uuid(key)))
        if offer is None:
            raise ValidationError({"id": "There is no such offer that you manage."})
        if str(offer.pk) in self.seen:
            raise ValidationError({"id": "An earlier row is about this offer too."})
        self.seen.add(str(offer.pk))
        changed = {
            name: text
            for name, text in wanted.items()
            if same(text) != same(text_of(COLUMNS[name](offer)))
        }
        if changed:
            _refuse_older(given.get("updated_at", "").strip(), offer)
            self._refuse_unlike_shown(offer)
        archived = changed.pop("is_archived", None)
        if archived is not None and (archived.lower() in ("true", "1")) != offer.is_archived:
            raise ValidationError(
                {"is_archived": "Not by import: use the list's actions to archive or restore."}
            )
        return offer, changed

    def _judged(self, offer: Offer | None, changed: dict[str, str]) -> OfferRow:
        """What the API would say to it, and what the sales so far forbid."""
        data = {
            name: _value(name, text)
            for name, text in changed.items()
            # A new offer has the API's defaults, or is told what it lacks.
            if offer is not None or text.strip() or name in LISTS | NULL_IF_EMPTY
        }
        serializer = OfferRow(offer, data=data, partial=offer is not None, context=self.context)
        errors = {} if serializer.is_valid() else _flat(serializer.errors)
        if offer is not None:
            for name, message in _forbidden(offer, serializer, errors).items():
                errors.setdefault(name, [message])
        if errors:
            raise ValidationError(errors)
        return serializer


def _whole(offers: QuerySet[Offer]) -> QuerySet[Offer]:
    return offers.select_related("event", "ticket_tier").prefetch_related(
        "target_sessions", "target_ticket_tiers"
    )


def _refuse_older(written: str, offer: Offer) -> None:
    """Raise for a row that was exported before somebody changed its offer, and would undo that.

    Nothing to compare is nothing refused: such a file has the columns that somebody chose.
    """
    if not written:
        return
    try:
        moment = parse_datetime(written)
    except ValueError:
        moment = None
    if moment is not None and moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    # Programs that make a time of it keep it to the millisecond.
    if moment is None or abs(moment - offer.updated_at) > timedelta(milliseconds=1):
        at = moment_text(offer.updated_at)
        said = f"It was changed after this file was written (at {at}): export it again."
        raise ValidationError({"updated_at": said})


def _forbidden(offer: Offer, serializer: OfferRow, errors: Any) -> dict[str, str]:
    """What the offer's sales forbid, for the preview: it is asked again under the lock."""
    if errors:
        return {}
    new = serializer.validated_data
    checks: list[Callable[[], None]] = [
        lambda: offer.refuse_price_change(
            new.get("price", offer.price), new.get("currency", offer.currency)
        ),
        lambda: offer.refuse_type_change(new.get("offer_type", offer.offer_type)),
        lambda: offer.refuse_total(new.get("inventory_total", offer.inventory_total)),
    ]
    found = {}
    for check in checks:
        try:
            check()
        except DomainError as refusal:
            found[refusal.attr or "__all__"] = str(refusal)
    return found


def _value(name: str, text: str) -> Any:
    if name in LISTS:
        return [part for part in text.replace(",", " ").replace(";", " ").split() if part]
    if name in NULL_IF_EMPTY and not text.strip():
        return None
    return text


def _differs(offer: Offer, new: dict[str, Any]) -> bool:
    """Whether it is said otherwise and means the same: ``50`` for ``50.00``."""
    for name, value in new.items():
        old = getattr(offer, name)
        if name in history.TARGETS:
            if {target.pk for target in old.all()} != {target.pk for target in value}:
                return True
        elif old != value:
            return True
    return False


def _diff(offer: Offer | None, given: dict[str, str], changed: dict[str, str]) -> list[str]:
    """The cells of the preview: what it is, and each field as it was and as it would be."""
    title = given.get("title") or (offer.title if offer else "")
    event = given.get("event") or (offer.event.slug if offer else "")
    if offer is None:
        lines = [(name, "", text) for name, text in changed.items() if text]
    else:
        lines = [(name, text_of(COLUMNS[name](offer)), text) for name, text in changed.items()]
    changes = format_html_join(
        "",
        "<div><b>{}</b>: <del>{}</del> <ins>{}</ins></div>",
        ((name, old, new or "nothing") for name, old, new in lines if name != "id"),
    )
    return [format_html("{}", title), format_html("{}", event), changes]


def _flat(errors: Any) -> dict[str, list[str]]:
    """The API's errors by field, those of a list's items with the list's own."""

    def messages(found: Any) -> list[str]:
        if isinstance(found, dict):
            found = list(found.values())
        if isinstance(found, list):
            return [message for each in found for message in messages(each)]
        return [str(found)]

    return {
        ("__all__" if name == "non_field_errors" else name): messages(found)
        for name, found in errors.items()
    }


def _column(dataset: Any, name: str) -> list[str]:
    if name not in dataset.headers:
        return []
    return [uncell(text_of(value)).strip() for value in dataset[name]]


def _uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


def _key(accepted: Any) -> str:
    offer = accepted[2].instance
    return "" if offer is None else str(offer.pk)
