"""Who may see and buy what. Knows nothing of stock, money or the clock."""

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.contrib.auth.models import AnonymousUser, User
from django.db.models import Exists, OuterRef, Q, QuerySet, TextField

from offers.errors import EventNotFound, NotEligible, NotRegistered, OfferNotFound
from offers.models import Event, EventSession, Membership, Offer, Registration, TicketTier
from offers.prepared import Given, Query

if TYPE_CHECKING:
    Caller = User | AnonymousUser
else:
    Caller = object


_NAMED = Query(lambda: Event.objects.filter(slug=Given("slug", TextField())))


def visible_events(caller: Caller) -> QuerySet[Event]:
    """Public events, private ones the caller is registered for, and the caller's own."""
    events = Event.objects.all()
    if caller.is_superuser:
        return events
    if not caller.is_authenticated:
        return events.filter(is_public=True)
    registered = Registration.objects.filter(event=OuterRef("pk"), user=caller)
    member = Membership.objects.filter(organization=OuterRef("organization"), user=caller)
    return events.filter(Q(is_public=True) | Exists(registered) | Exists(member))


def visible_event(caller: Caller, slug: str) -> Event:
    """Return the event, or raise ``EventNotFound`` for one the caller may not know of.

    By the rule of ``visible_events``, which most callers needn't be looked up for.
    """
    event = _NAMED.first(slug=slug)
    if event is None or not (
        event.is_public or visible_events(caller).filter(pk=event.pk).exists()
    ):
        raise EventNotFound
    return event


def is_member(caller: Caller, event: Event) -> bool:
    """Whether the caller works for the event's organization."""
    if caller.is_superuser:
        return True
    return (
        caller.is_authenticated
        and Membership.objects.filter(organization=event.organization_id, user=caller).exists()
    )


def is_editor(caller: Caller, event: Event) -> bool:
    """Whether the caller owns or manages the event's organization; support only looks."""
    if caller.is_superuser:
        return True
    return (
        caller.is_authenticated
        and Membership.objects.filter(organization=event.organization_id, user=caller)
        .exclude(role=Membership.Role.SUPPORT)
        .exists()
    )


def may_refund(caller: User, event: Event) -> bool | None:
    """Whether the caller may send an event's money back; ``None`` for whom it doesn't employ."""
    if caller.is_superuser:
        return True
    membership = Membership.objects.filter(organization=event.organization_id, user=caller).first()
    return None if membership is None else membership.role != Membership.Role.SUPPORT


def registration_of(caller: Caller, event: Event) -> Registration | None:
    """The caller's place at the event, if there is one."""
    if not caller.is_authenticated:
        return None
    return Registration.objects.filter(event=event, user=caller).first()


@dataclass(frozen=True, slots=True)
class Place:
    """What of a registration decides what is offered; whoever has an equal one is offered the same.

    Ids. No sessions means every session of the event.
    """

    ticket_tier: int
    sessions: frozenset[int]


def place_of(caller: Caller, event: Event) -> Place | None:
    """The caller's place at the event, if there is one: one query."""
    if not caller.is_authenticated:
        return None
    rows = list(
        Registration.objects.filter(event=event, user=caller).values_list(
            "ticket_tier_id", "sessions"
        )
    )
    if not rows:
        return None
    return Place(rows[0][0], frozenset(session for _, session in rows if session is not None))


def offers_for(caller: Caller, event: Event, *, session: str | None = None) -> QuerySet[Offer]:
    """The event's offers whose targeting lets the caller buy them, as one query.

    ``session`` narrows to what belongs on the page of that session: offers without a target
    session, and those that target this one.
    """
    return offers_open_to(place_of(caller, event), event, session=session)


def offers_open_to(
    place: Place | None, event: Event, *, session: str | None = None
) -> QuerySet[Offer]:
    """``offers_for`` everybody who has that place at the event, or none."""
    if place is None:
        tier_matches = attends = Q(pk__in=[])
    else:
        tier_matches = Q(Exists(_tiers(OuterRef("pk")).filter(tickettier=place.ticket_tier)))
        mine = _sessions(OuterRef("pk"))
        attends = Q(
            Exists(mine.filter(eventsession__in=place.sessions) if place.sessions else mine)
        )
    offers = Offer.objects.filter(
        ~Exists(_tiers(OuterRef("pk"))) | tier_matches,
        ~Exists(_sessions(OuterRef("pk"))) | attends,
        event=event,
    )
    if session is not None:
        here = _sessions(OuterRef("pk")).filter(eventsession__slug=session)
        offers = offers.filter(~Exists(_sessions(OuterRef("pk"))) | Exists(here))
    return offers


def buyable_by(caller: User | Given) -> QuerySet[Offer]:
    """The offers of all events that ``refuse_unless_eligible`` lets the caller buy: one query."""
    place = Registration.objects.filter(event=OuterRef("event"), user=caller)
    # Who is registered without sessions attends them all.
    attends = Exists(place.filter(sessions__isnull=True)) | Exists(
        place.filter(sessions__offers=OuterRef("pk"))
    )
    return Offer.objects.filter(
        Q(event__is_public=True) | Exists(place),
        ~Exists(_tiers(OuterRef("pk"))) | Exists(place.filter(ticket_tier__offers=OuterRef("pk"))),
        ~Exists(_sessions(OuterRef("pk"))) | attends,
    )


def visible_offer(caller: Caller, offer_id: uuid.UUID) -> Offer:
    """Return an offer with its event, or raise ``OfferNotFound``: see ``visible_events``."""
    offer = (
        Offer.objects.select_related("event")
        .filter(pk=offer_id, event__in=visible_events(caller))
        .first()
    )
    if offer is None:
        raise OfferNotFound
    return offer


def refuse_unless_eligible(caller: Caller, offer: Offer) -> None:
    """Raise ``NotRegistered`` or ``NotEligible`` unless the caller may buy this visible offer."""
    if not offer.event.is_public and registration_of(caller, offer.event) is None:
        raise NotRegistered
    if not offers_for(caller, offer.event).filter(pk=offer.pk).exists():
        raise NotEligible


def foreign_targets(
    event: Event, sessions: list[EventSession], tiers: list[TicketTier]
) -> dict[str, str]:
    """Say which targets belong to another event: field -> message, for forms and the API."""
    errors = {}
    if any(session.event_id != event.pk for session in sessions):
        errors["target_sessions"] = "Choose sessions of the offer's own event."
    if any(tier.event_id != event.pk for tier in tiers):
        errors["target_ticket_tiers"] = "Choose ticket tiers of the offer's own event."
    return errors


def _tiers(offer: OuterRef) -> QuerySet:
    return Offer.target_ticket_tiers.through.objects.filter(offer=offer)


def _sessions(offer: OuterRef) -> QuerySet:
    return Offer.target_sessions.through.objects.filter(offer=offer)
