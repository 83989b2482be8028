"""The inbox: Stripe's events as they came, what became of each, and having them done again."""

import json
import time
import uuid
from datetime import timedelta
from typing import Any, ClassVar, cast

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.cache import caches
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.db.models.fields.json import KT
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import redirect
from django.urls import path
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from unfold.decorators import display

from offers import staff_log
from offers.careful_pages import CarefulChangeList
from offers.scoped_admin import SuperusersOnly
from purchases import webhooks, wording
from purchases.models import Purchase, StripeEvent
from purchases.read_only_admin import ReadOnly

FAILED = (StripeEvent.State.FAILED, StripeEvent.State.DEAD)
# So many are replayed while the page waits, and no longer than that: an event may ask Stripe, and
# take as long as Stripe does. The rest is left to the worker.
AT_ONCE = 50
PATIENCE = timedelta(seconds=10)
SHORT = "j M Y, H:i:s"
# Seconds for which each process remembers the number beside the menu's entry.
REMEMBERED = 5

# What an event is about, by Stripe's own names, as far as it says so itself.
ABOUT = {
    "object_id": "payload__data__object__id",
    "payment": "payload__data__object__payment_intent",
    "reference": "payload__data__object__client_reference_id",
}


def failed() -> int:
    """How many events wait for a person, or for another try; for the menu, so it is remembered."""
    # The cache of this process alone, which is there when Redis isn't.
    remembered: int | None = caches["process"].get("failed-stripe-events")
    if remembered is None:
        remembered = StripeEvent.objects.filter(state__in=FAILED).count()
        caches["process"].set("failed-stripe-events", remembered, REMEMBERED)
    return remembered


class ByType(admin.SimpleListFilter):
    """The types that mean something here; Django's own filter would look for all in the table."""

    title = "type"
    parameter_name = "type"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [*((name, name) for name in webhooks.HANDLERS), ("other", "all others")]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        if self.value() == "other":
            return queryset.exclude(type__in=webhooks.HANDLERS)
        return queryset.filter(type=self.value()) if self.value() else queryset


class Inbox(CarefulChangeList):
    """A page of events, with what each is about: read by one query for all of them."""

    result_list: Any

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        if not self.multi_page:
            # By their keys, too, which an index has with type and state: payloads are long to read.
            self.result_list = self.paginator.page(1).object_list
        self.result_list = list(self.result_list)
        find_purchases(self.result_list)


def find_purchases(events: list[Any]) -> None:
    """Note on each event the purchase that it names, if it does; for events read with ``ABOUT``."""
    sessions = {event.object_id for event in events if event.object_id}
    payments = {event.payment for event in events if event.payment}
    references = {event.reference for event in events if _is_uuid(event.reference)}
    named = Purchase.objects.filter(
        Q(checkout_session_id__in=sessions)
        | Q(payment_intent_id__in=payments) & ~Q(payment_intent_id="")
        | Q(pk__in=references)
    )
    found: dict[str | None, Purchase] = {}
    for purchase in named:
        for key in (purchase.checkout_session_id, purchase.payment_intent_id, str(purchase.pk)):
            found[key] = purchase
    for event in events:
        keys = filter(None, (event.reference, event.object_id, event.payment))
        event.purchase = next((found[key] for key in keys if key in found), None)


def _is_uuid(text: str | None) -> bool:
    try:
        return str(uuid.UUID(text or "")) == text
    except ValueError:
        return False


@admin.register(StripeEvent)
class StripeEventAdmin(ReadOnly, SuperusersOnly):
    """Looked at, and replayed, which is harmless for those that were processed before."""

    change_form_outer_before_template = "admin/purchases/stripeevent/tools.html"
    list_display = (
        "received", "type", "state_label", "about", "attempts", "next_try", "last_line",
    )  # fmt: skip
    list_display_links = ("received", "type")
    list_filter = ("state", ByType, "received_at")
    search_fields = ("=id",)
    search_help_text = "Stripe's id of an event (evt_…)"
    ordering: ClassVar = ["-received_at"]
    show_full_result_count = False
    list_per_page = 50
    fields = (
        "id", "type", "state_label", "about", "created", "received_at", "processed_at", "attempts",
        "next_try", "traceback", "content",
    )  # fmt: skip
    readonly_fields = ("state_label", "about", "next_try", "traceback", "content")
    actions = ("replay",)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> Any:
        return Inbox

    def get_queryset(self, request: HttpRequest) -> QuerySet[StripeEvent]:
        """Without the payload, of which a list needs three words; the page of one reads it."""
        events: QuerySet[StripeEvent] = super().get_queryset(request)
        return events.defer("payload").annotate(**{name: KT(path) for name, path in ABOUT.items()})

    # -- What is shown ----------------------------------------------------------------------------

    @display(
        description="state",
        ordering="state",
        label={
            "Stored": "info", "Processed": "success", "Ignored": "primary", "Failed": "warning",
            "Dead": "danger",
        },
    )  # fmt: skip
    def state_label(self, event: StripeEvent) -> str:
        return StripeEvent.State(event.state).label

    @admin.display(description="about")
    def about(self, event: Any) -> str:
        if not hasattr(event, "purchase"):
            find_purchases([event])
        if event.purchase is None:
            return "-"
        return wording.to(event.purchase)

    @admin.display(description="received", ordering="received_at")
    def received(self, event: StripeEvent) -> str:
        return date_format(event.received_at, SHORT)

    @admin.display(description="next try", ordering="due_at")
    def next_try(self, event: StripeEvent) -> str | None:
        waits = event.state in (StripeEvent.State.STORED, StripeEvent.State.FAILED)
        return date_format(event.due_at, SHORT) if waits else None

    @admin.display(description="error")
    def last_line(self, event: StripeEvent) -> str:
        return format_html('<span class="bo-clip" title="{0}">{0}</span>', why(event) or "-")

    @admin.display(description="error")
    def traceback(self, event: StripeEvent) -> str:
        return _in_a_box(event.error) if event.error else "-"

    @admin.display(description="as Stripe sent it")
    def content(self, event: StripeEvent) -> str:
        return _in_a_box(json.dumps(event.payload, indent=2, ensure_ascii=False, sort_keys=True))

    # -- Again ------------------------------------------------------------------------------------

    @admin.action(description="Process again")
    def replay(self, request: HttpRequest, queryset: QuerySet[StripeEvent]) -> None:
        """A few while the page waits, each failure with its reason; the worker does the rest."""
        # Read once: what is chosen by its state would change while it is replayed.
        chosen = list(queryset.order_by("created"))
        now = chosen if len(chosen) <= AT_ONCE else []
        later = chosen[self._replay(request, now) :]
        if later:
            webhooks.replay_later([event.pk for event in later], now=timezone.now())
            messages.info(
                request,
                f"{len(later):,} are being processed again by the worker. Those that still fail "
                "are listed here as failed, each with its reason.",
            )
        staff_log.record(cast("User", request.user), *chosen, message="Processed again.")

    def _replay(self, request: HttpRequest, events: list[StripeEvent]) -> int:
        """Replay, in their order, until the patience is over; returns how many were."""
        until = time.monotonic() + PATIENCE.total_seconds()
        fine = seen = 0
        for event in events:
            if time.monotonic() > until:
                break
            seen += 1
            if webhooks.replay(event, now=timezone.now()).state in FAILED:
                messages.error(request, f"{event.pk} ({event.type}) fails: {why(event)}")
            else:
                fine += 1
        if fine:
            messages.success(request, f"{fine} processed again.")
        return seen

    def get_urls(self) -> list[Any]:
        replay = self.admin_site.admin_view(self.replay_view)
        own = path("<path:object_id>/replay/", replay, name="purchases_stripeevent_replay")
        return [own, *super().get_urls()]

    def replay_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """What the button on the page of one event leads to."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        event = self.get_object(request, object_id)
        if event is None:
            raise Http404
        self.replay(request, StripeEvent.objects.filter(pk=event.pk))
        return redirect(wording.page(event))


def why(event: StripeEvent) -> str:
    """The last line of a traceback, which names the error."""
    lines = event.error.strip().splitlines()
    return lines[-1] if lines else ""


def _in_a_box(text: str) -> str:
    return format_html('<pre class="bo-box" tabindex="0">{}</pre>', text)
