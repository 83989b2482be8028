"""A paid purchase on its way into the attendee's hands."""

import uuid
from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q

from fulfillment.states import Status, Type
from purchases.models import Purchase
from purchases.states import Status as PurchaseStatus


class Fulfillment(models.Model):
    """What became of one paid purchase.

    The row is the queue: it is in it as long as ``due_at`` says when it is to be looked at.
    ``status`` changes through ``fulfillment.transitions`` only, but for a worker's claim. What is
    delivered has a row of its own, in the package of its type.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    purchase = models.OneToOneField(Purchase, on_delete=models.PROTECT, related_name="fulfillment")
    type = models.CharField(max_length=10, choices=Type.choices)
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.PENDING)
    attempts = models.PositiveIntegerField(default=0)
    due_at = models.DateTimeField(
        null=True,
        help_text="Claimed, or put off after a failure, until then. Empty: no worker's any more.",
    )
    is_stalled = models.BooleanField(
        default=False, help_text="Failed with others of its type: it waits until that is mended."
    )
    error = models.TextField(blank=True, help_text="Why the last attempt failed.")
    paid_at = models.DateTimeField(help_text="Who paid first is served first.")
    created_at = models.DateTimeField()
    fulfilled_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering: ClassVar = ["paid_at"]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=~Q(status=Status.FULFILLED) | Q(fulfilled_at__isnull=False),
                name="fulfillment_fulfilled_at_some_time",
            ),
            models.CheckConstraint(
                condition=Q(status=Status.REVOKED) ^ Q(revoked_at__isnull=True),
                name="fulfillment_revoked_at_some_time",
            ),
            models.CheckConstraint(
                condition=Q(due_at__isnull=True)
                | Q(status__in=[Status.PENDING, Status.PROCESSING, Status.FAILED]),
                name="fulfillment_resolved_leaves_the_queue",
            ),
            models.CheckConstraint(
                condition=Q(is_stalled=False) | Q(due_at__isnull=False),
                name="fulfillment_stalled_stays_in_the_queue",
            ),
        ]
        indexes: ClassVar = [
            models.Index(
                fields=["paid_at", "id"],
                condition=Q(due_at__isnull=False, is_stalled=False),
                name="fulfillment_queue",
            ),
            models.Index(
                fields=["type", "paid_at"], condition=Q(is_stalled=True), name="fulfillment_stalled"
            ),
            # Counted by the dashboard, from the index alone.
            models.Index(
                fields=["status", "paid_at"],
                include=["type", "purchase"],
                name="fulfillment_by_status",
            ),
            models.Index(fields=["paid_at"], name="fulfillment_by_payment"),
        ]

    def __str__(self) -> str:
        return f"{self.type} for {self.purchase_id}: {self.status}"

    @property
    def is_due(self) -> bool:
        """Whether a worker will look at it again by itself."""
        return self.due_at is not None

    @property
    def is_handed_out(self) -> bool:
        """Whether the attendee may have it now: asked at each use, so that a refund counts."""
        return self.status == Status.FULFILLED and self.purchase.status == PurchaseStatus.PAID

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Refuse a save that isn't told its fields: rows are shared with other processes."""
        if not self._state.adding and kwargs.get("update_fields") is None:
            raise TypeError("Save a fulfilment through fulfillment.transitions.")
        super().save(*args, **kwargs)


class FulfillmentTransition(models.Model):
    """Who changed a fulfilment's status, why and when. Written once, never changed."""

    fulfillment = models.ForeignKey(
        Fulfillment, on_delete=models.CASCADE, related_name="transitions"
    )
    name = models.CharField(max_length=32)
    from_status = models.CharField(max_length=10, choices=Status.choices, blank=True)
    to_status = models.CharField(max_length=10, choices=Status.choices)
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    source = models.CharField(
        max_length=20, help_text="Which edge asked for it: worker, api, page, admin, command."
    )
    reason = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField()

    class Meta:
        ordering: ClassVar = ["id"]

    def __str__(self) -> str:
        return f"{self.from_status or 'new'} -> {self.to_status}"


# The types' own, in their packages: Django looks for models in this module.
from fulfillment.bookings import models as bookings  # noqa: E402, F401 - they need those above
from fulfillment.digital import models as digital  # noqa: E402, F401 - as above
from fulfillment.shipping import models as shipping  # noqa: E402, F401 - as above
from fulfillment.tickets import models as tickets  # noqa: E402, F401 - as above
