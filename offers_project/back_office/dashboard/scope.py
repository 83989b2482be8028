"""Whose figures: one event's, or those of all events that the caller may see."""

from dataclasses import dataclass
from uuid import UUID

from django.db.models import Q

from offers.models import Event


@dataclass(frozen=True)
class Scope:
    """``organizations`` are the caller's, ``None`` for superusers; ``event`` is one of theirs."""

    organizations: tuple[UUID, ...] | None
    event: Event | None = None

    def of(self, event: str) -> Q:
        """The condition on a queryset; ``event`` leads from its model to the event."""
        if self.event is not None:
            return Q(**{event: self.event.pk})
        return self.of_organizations(f"{event}__organization")

    def of_organizations(self, organization: str) -> Q:
        """The same for what belongs to an organization as a whole."""
        if self.organizations is None:
            return Q()
        return Q(**{f"{organization}__in": self.organizations})
