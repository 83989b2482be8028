"""An organization keeps an owner: without one nobody could add members to it any more."""

from collections.abc import Collection
from uuid import UUID

from offers.errors import LastOwner
from offers.models import Membership, Organization


def lock(organization_id: UUID) -> None:
    """Let nobody else change who its owners are before the caller's transaction ends."""
    Organization.objects.select_for_update(no_key=True).filter(pk=organization_id).first()


def refuse_to_lose_the_owners(organization_id: UUID, *, leaving: Collection[int]) -> None:
    """Raise ``LastOwner`` if no owner is left once the memberships ``leaving`` are none of one.

    Called by admin, in its transaction, before a membership is deleted or becomes another: the
    organization's row stays locked until that ends, so two owners can't demote each other.
    """
    lock(organization_id)
    owners = Membership.objects.filter(organization=organization_id, role=Membership.Role.OWNER)
    if owners.filter(pk__in=leaving).exists() and not owners.exclude(pk__in=leaving).exists():
        raise LastOwner
