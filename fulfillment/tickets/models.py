"""What a ticket upgrade did to a registration, and what a refund has to put back."""

from typing import ClassVar

from django.db import models
from django.db.models import Q, QuerySet

from fulfillment.codes import text
from fulfillment.models import Fulfillment
from fulfillment.states import Status
from offers.models import Registration, TicketTier
from purchases.states import Status as PurchaseStatus


class TicketUpgrade(models.Model):
    """One paid upgrade of one registration.

    Those of a registration that aren't revoked form a chain, in the order of payment (of one
    moment, in that of their ids): each one's ``from_tier`` is where its refund leads back to, so it
    changes, under the registration's lock, when one before it is refunded or delivered late. A
    registration with upgrades can't be deleted, nor their tiers: a refund could put nothing back,
    and what was sold must keep its record.
    """

    fulfillment = models.OneToOneField(
        Fulfillment, on_delete=models.PROTECT, related_name="ticket_upgrade"
    )
    registration = models.ForeignKey(
        Registration, on_delete=models.PROTECT, related_name="upgrades"
    )
    from_tier = models.ForeignKey(TicketTier, on_delete=models.PROTECT, related_name="+")
    to_tier = models.ForeignKey(TicketTier, on_delete=models.PROTECT, related_name="+")
    code = models.CharField(
        max_length=text.LENGTH, unique=True, help_text="What the attendee shows at the entrance."
    )
    applied_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering: ClassVar = ["id"]

    def __str__(self) -> str:
        return f"{self.registration}: {self.to_tier.title}"

    def paid_later(self) -> QuerySet["TicketUpgrade"]:
        """Those of the same ticket that come after this one, the next one first."""
        paid_at = self.fulfillment.paid_at
        return TicketUpgrade.objects.filter(
            Q(fulfillment__paid_at__gt=paid_at) | Q(fulfillment__paid_at=paid_at, pk__gt=self.pk),
            registration=self.registration_id,
        ).order_by("fulfillment__paid_at", "pk")

    def superseded_by(self) -> "TicketUpgrade | None":
        """The later upgrade of the same ticket whose code counts instead, if there is one now.

        One whose money is on its way back counts no more, though its tier stays until it is.
        """
        return (
            self.paid_later()
            .filter(
                fulfillment__status=Status.FULFILLED,
                fulfillment__purchase__status=PurchaseStatus.PAID,
            )
            .select_related("to_tier", "fulfillment")
            .last()
        )
