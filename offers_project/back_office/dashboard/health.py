"""Whether the parts that it all runs on are well; members are told what concerns them.

Nothing outside is asked: Redis, which answers within its time-out, and what is on record.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.core.cache import cache
from django.db import connection
from django.db.models import Count, Min, Q, Value
from django.urls import reverse

from offers import heartbeat
from offers.breaker import redis_breaker
from offers_project.back_office.dashboard.scope import Scope
from offers_project.back_office.dashboard.waiting import Attention
from purchases import stripe_probe
from purchases.models import StripeEvent, WebhookEndpoint

# Beat asks each minute; three missed ones are no coincidence.
WORKER_LATE = timedelta(minutes=3)
# The sweep takes what is left over each half minute.
EVENTS_LATE = timedelta(minutes=5)
# Beside the states of events.
NEWEST = "newest"


@dataclass(frozen=True)
class Check:
    name: str
    is_well: bool
    said: str
    link: str = ""


@dataclass(frozen=True)
class Health:
    checks: list[Check]
    # What a person has to look at.
    attention: list[Attention]


def of(scope: Scope, *, now: datetime, is_for_superusers: bool) -> Health:
    """At most three queries."""
    endpoints, switched_off = _endpoints(scope)
    if not is_for_superusers:
        return Health([_worker(now), _stripe(), endpoints], [switched_off])
    events, dead = _events(now)
    return Health(
        [_postgresql(), _redis(), _worker(now), _stripe(), events, endpoints],
        [dead, switched_off],
    )


def _postgresql() -> Check:
    # That it answers is why there is a page.
    major, minor = divmod(int(getattr(connection, "pg_version", 0)), 10_000)
    return Check("PostgreSQL", is_well=True, said=f"answers; version {major}.{minor}")


def _redis() -> Check:
    cache.get("dashboard")
    if redis_breaker.is_open:
        return Check(
            "Redis", is_well=False, said="away: everything works, slower; showings aren't counted"
        )
    return Check("Redis", is_well=True, said="answers")


def _worker(now: datetime) -> Check:
    last = heartbeat.last()
    if last is None:
        return Check("Worker", is_well=False, said="not seen yet: does it run, with its beat?")
    if now - last > WORKER_LATE:
        said = f"not seen for {ago(now - last)}: deliveries, e-mails and refunds wait for it"
        return Check("Worker", is_well=False, said=said)
    return Check("Worker", is_well=True, said=f"at work, seen {ago(now - last)} ago")


def _stripe() -> Check:
    if stripe_probe.is_well():
        return Check("Stripe", is_well=True, said="could be reached a moment ago")
    return Check("Stripe", is_well=False, said="not configured, or couldn't be reached just now")


def _events(now: datetime) -> tuple[Check, Attention]:
    """What Stripe told us: the superusers' matter, since it is of all organizations."""
    state = StripeEvent.State
    # Each by an index of its own: there are several events a purchase, and none is ever deleted.
    stuck = StripeEvent.objects.filter(state__in=[state.STORED, state.FAILED, state.DEAD])
    newest = StripeEvent.objects.order_by("-received_at").annotate(how_many=Value(0))
    found = (
        stuck.order_by("state")
        .values_list("state")
        .annotate(how_many=Count("pk"), at=Min("received_at"))
        .union(newest.values_list(Value(NEWEST), "how_many", "received_at")[:1], all=True)
    )
    counted = {name: (how_many, at) for name, how_many, at in found}
    (waiting, first), (failed, second), (dead, _), (_, last) = (
        counted.get(name, (0, None)) for name in (state.STORED, state.FAILED, state.DEAD, NEWEST)
    )
    oldest = min((at for at in (first, second) if at is not None), default=None)
    link = reverse("admin:purchases_stripeevent_changelist")
    said = [f"{waiting} waiting, {failed} to be tried again"]
    if oldest is not None:
        said.append(f"the oldest for {ago(now - oldest)}")
    said.append("none came yet" if last is None else f"the last one came {ago(now - last)} ago")
    is_well = not dead and (oldest is None or now - oldest < EVENTS_LATE)
    given_up = Attention(
        dead, "Stripe events that were given up", f"{link}?state__exact={state.DEAD}"
    )
    return Check("Stripe's webhooks", is_well, "; ".join(said), link), given_up


def _endpoints(scope: Scope) -> tuple[Check, Attention]:
    found = WebhookEndpoint.objects.filter(scope.of_organizations("organization")).aggregate(
        active=Count("pk", filter=Q(is_active=True)),
        failing=Count("pk", filter=Q(is_active=True, failing_since__isnull=False)),
        off=Count("pk", filter=Q(is_active=False) & ~Q(disabled_reason="")),
    )
    link = reverse("admin:purchases_webhookendpoint_changelist")
    said = f"{found['active']} active, {found['failing']} of them failing"
    off = Attention(found["off"], "webhook endpoints switched off since they failed", link)
    return Check("Webhook endpoints", not found["failing"], said, link), off


def ago(age: timedelta) -> str:
    seconds = max(0, int(age.total_seconds()))
    for size, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {name}"
    return f"{seconds} s"
