"""A purchase is a hold that becomes a sale."""

import uuid
from datetime import datetime
from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from offers import money
from offers.models import Event, Offer
from offers.prepared import Given
from purchases.states import OPEN_HOLDS, ReleaseReason, Status


class DeliveryMethod(models.TextChoices):
    SHIPPING = "shipping", "sent to the buyer"
    COLLECTION = "collection", "collected at the event"


class Purchase(models.Model):
    """One attendee's purchase of some units of one offer.

    ``status`` changes through ``purchases.transitions`` only. The row is also the record behind an
    ``Idempotency-Key``, and its status is the point from which a crashed request is taken up again.
    What was bought is copied when the hold is made: later edits of the offer change no receipt.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    # These three have no index of their own: each is the first column of one below.
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        related_name="purchases",
        db_index=False,
    )
    offer = models.ForeignKey(
        Offer, on_delete=models.PROTECT, related_name="purchases", db_index=False
    )
    event = models.ForeignKey(
        Event, on_delete=models.PROTECT, related_name="purchases", db_index=False
    )
    offer_title = models.CharField(max_length=200)
    quantity = models.PositiveIntegerField()
    unit_price = models.DecimalField(max_digits=12, decimal_places=3)
    total_price = models.DecimalField(max_digits=15, decimal_places=3)
    currency = models.CharField(max_length=3)

    status = models.CharField(max_length=20, choices=Status.choices, default=Status.RESERVED)
    release_reason = models.CharField(max_length=20, choices=ReleaseReason.choices, blank=True)
    reserved_until = models.DateTimeField()
    refunded_amount = models.DecimalField(max_digits=15, decimal_places=3, default=0)
    created_at = models.DateTimeField()
    paid_at = models.DateTimeField(null=True, blank=True)
    language = models.CharField(
        max_length=10,
        default="en",
        db_default="en",
        editable=False,
        help_text="The buyer's, when they bought it: of Stripe's page, and of e-mails about it.",
    )
    refunded_at = models.DateTimeField(null=True, blank=True)

    idempotency_key = models.CharField(max_length=255, null=True, editable=False)
    request_fingerprint = models.CharField(max_length=64, blank=True, editable=False)

    checkout_session_id = models.CharField(max_length=255, null=True, editable=False)
    checkout_url = models.TextField(blank=True, editable=False)
    checkout_expires_at = models.DateTimeField(
        null=True, editable=False, help_text="When Stripe ends the Checkout Session by itself."
    )
    checkout_attempt = models.PositiveSmallIntegerField(
        default=1, editable=False, help_text="Part of the idempotency key sent to Stripe."
    )
    checkout_request = models.JSONField(
        null=True,
        editable=False,
        help_text="What Stripe is asked, kept until it answers: a retry must ask the same.",
    )
    checkout_failed_at = models.DateTimeField(
        null=True,
        editable=False,
        help_text="The buyer was told that it failed, but Stripe may have opened a session.",
    )
    stray_session_check_due = models.BooleanField(
        default=False,
        editable=False,
        help_text="Stripe may have a session of this purchase that nobody was given.",
    )
    ending_until = models.DateTimeField(
        null=True, editable=False, help_text="Somebody is ending this hold, and has until then."
    )
    payment_intent_id = models.CharField(max_length=255, blank=True, editable=False)
    restock_on_refund = models.BooleanField(
        default=True,
        editable=False,
        help_text="Whether a full refund puts the units back on sale, or writes them off.",
    )
    delivery_method = models.CharField(
        max_length=10,
        blank=True,
        choices=DeliveryMethod.choices,
        editable=False,
        help_text="How merchandise reaches the buyer; empty for everything else.",
    )
    shipping_address = models.JSONField(
        null=True, editable=False, help_text="As the buyer gave it to Stripe: name and address."
    )
    fulfillment_due = models.BooleanField(
        default=False,
        editable=False,
        help_text="Became paid or refunded, and fulfilment hasn't heard of it yet.",
    )
    problem = models.TextField(
        blank=True,
        editable=False,
        help_text="What a person has to look at before anything moves; sweeps leave it alone.",
    )

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["user", "idempotency_key"], name="purchase_once_per_idempotency_key"
            ),
            models.UniqueConstraint(fields=["checkout_session_id"], name="purchase_by_session"),
            models.CheckConstraint(condition=Q(quantity__gte=1), name="purchase_quantity_positive"),
            models.CheckConstraint(
                condition=Q(unit_price__gte=0) & Q(total_price=F("unit_price") * F("quantity")),
                name="purchase_total_is_unit_price_times_quantity",
            ),
            models.CheckConstraint(
                condition=Q(refunded_amount__gte=0) & Q(refunded_amount__lte=F("total_price")),
                name="purchase_refunds_at_most_its_total",
            ),
            models.CheckConstraint(
                condition=Q(status=Status.RELEASED) ^ Q(release_reason=""),
                name="purchase_released_for_a_reason",
            ),
            models.CheckConstraint(
                condition=~Q(status__in=[Status.PAID, Status.REFUNDING]) | Q(paid_at__isnull=False),
                name="purchase_paid_at_some_time",
            ),
            models.CheckConstraint(
                condition=~Q(status=Status.AWAITING_PAYMENT) | Q(checkout_session_id__isnull=False),
                name="purchase_awaits_payment_of_a_session",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["user", "event"], name="purchase_by_buyer"),
            models.Index(fields=["offer", "status"], name="purchase_by_offer"),
            models.Index(fields=["status", "reserved_until"], name="purchase_by_deadline"),
            models.Index(
                fields=["checkout_failed_at"],
                condition=Q(checkout_failed_at__isnull=False),
                name="purchase_failed_checkout",
            ),
            models.Index(
                fields=["created_at"],
                condition=Q(stray_session_check_due=True),
                name="purchase_stray_session",
            ),
            models.Index(
                fields=["payment_intent_id"],
                condition=~Q(payment_intent_id=""),
                name="purchase_by_payment",
            ),
            models.Index(
                fields=["paid_at"],
                condition=Q(fulfillment_due=True),
                name="purchase_news_for_fulfillment",
            ),
            # The back-office's lists and figures; what is included is read from the index alone.
            models.Index(
                fields=["-created_at", "-id"],
                include=["event", "offer", "paid_at", "refunded_amount"],
                name="purchase_newest",
            ),
            models.Index(fields=["event", "-created_at"], include=["id"], name="purchase_by_event"),
            models.Index(
                fields=["paid_at"],
                include=["event", "offer", "currency", "quantity", "total_price"],
                condition=Q(paid_at__isnull=False),
                name="purchase_by_payment_time",
            ),
            models.Index(fields=["event"], condition=~Q(problem=""), name="purchase_with_problem"),
        ]

    def __str__(self) -> str:
        return f"{self.quantity} x {self.offer_title}"

    @property
    def is_open_hold(self) -> bool:
        return self.status in OPEN_HOLDS

    def is_ending(self, now: datetime) -> bool:
        """Whether somebody is ending this hold just now, so that nobody else may take it up."""
        return self.ending_until is not None and self.ending_until > now

    @staticmethod
    def nobody_is_ending(now: datetime | Given) -> Q:
        """The opposite of ``is_ending``, for a statement that claims the hold."""
        return Q(ending_until__isnull=True) | Q(ending_until__lte=now)

    @property
    def total_minor(self) -> int:
        """The total in Stripe's minor units."""
        return money.to_minor_units(self.total_price, self.currency)

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Refuse a save that isn't told its fields: rows are shared with other processes."""
        if not self._state.adding and kwargs.get("update_fields") is None:
            raise TypeError("Save a purchase through purchases.transitions, or with update_fields.")
        super().save(*args, **kwargs)


class PurchaseTransition(models.Model):
    """Who changed a purchase's status, why and when. Written once, never changed."""

    purchase = models.ForeignKey(Purchase, on_delete=models.CASCADE, related_name="transitions")
    name = models.CharField(max_length=32)
    from_status = models.CharField(max_length=20, choices=Status.choices, blank=True)
    to_status = models.CharField(max_length=20, choices=Status.choices)
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    source = models.CharField(
        max_length=20, help_text="Which edge asked for it: api, webhook, sweep, admin, command."
    )
    reason = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField()

    class Meta:
        ordering: ClassVar = ["id"]

    def __str__(self) -> str:
        return f"{self.from_status or 'new'} -> {self.to_status}"


class Refund(models.Model):
    """Money on its way back to a buyer, or back already: one row for each refund of a payment.

    Ours are stored as ``requested`` and then sent: the row is the queue. One that was made in
    Stripe's dashboard gets its row when Stripe tells of it. Written by ``purchases.refunds`` alone.
    """

    class State(models.TextChoices):
        REQUESTED = "requested"
        PENDING = "pending"
        SUCCEEDED = "succeeded"
        FAILED = "failed"

    class Cause(models.TextChoices):
        STAFF = "staff", "asked for by staff"
        LATE_PAYMENT = "late_payment", "paid too late, nothing left"
        SECOND_PAYMENT = "second_payment", "paid a second time"
        STRIPE = "stripe", "made at Stripe"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    purchase = models.ForeignKey(Purchase, on_delete=models.PROTECT, related_name="refunds")
    payment_intent_id = models.CharField(
        max_length=255, help_text="The payment it is of: maybe not the one the purchase is paid by."
    )
    amount = models.DecimalField(max_digits=15, decimal_places=3)
    state = models.CharField(max_length=10, choices=State.choices, default=State.REQUESTED)
    cause = models.CharField(max_length=20, choices=Cause.choices)
    reason = models.CharField(max_length=500, blank=True)
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    idempotency_key = models.CharField(max_length=255, null=True)
    request_fingerprint = models.CharField(max_length=64, blank=True)
    stripe_refund_id = models.CharField(max_length=255, null=True)
    stripe_attempt = models.PositiveSmallIntegerField(
        default=1, help_text="Part of the idempotency key sent to Stripe."
    )
    attempts = models.PositiveIntegerField(default=0)
    due_at = models.DateTimeField(help_text="Sent or looked at again, but not before.")
    error = models.TextField(blank=True)
    created_at = models.DateTimeField()
    settled_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering: ClassVar = ["created_at"]
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(amount__gt=0), name="refund_amount_positive"),
            models.UniqueConstraint(fields=["stripe_refund_id"], name="refund_by_stripe_id"),
            models.UniqueConstraint(
                fields=["purchase", "idempotency_key"], name="refund_once_per_idempotency_key"
            ),
        ]
        indexes: ClassVar = [
            models.Index(
                fields=["due_at"],
                condition=Q(state__in=["requested", "pending"]),
                name="refund_unsettled",
            ),
            models.Index(fields=["payment_intent_id"], name="refund_by_payment"),
            models.Index(fields=["settled_at"], name="refund_by_settlement"),
            models.Index(fields=["state"], condition=Q(state="failed"), name="refund_failed"),
            models.Index(fields=["-created_at"], name="refund_newest"),
        ]

    def __str__(self) -> str:
        return f"{self.amount} of {self.purchase_id}: {self.state}"

    @property
    def is_under_way(self) -> bool:
        """Whether the money may still arrive."""
        return self.state in (self.State.REQUESTED, self.State.PENDING)


class Dispute(models.Model):
    """A cardholder's objection to a payment, as Stripe tells of it; answered in its dashboard.

    The purchase keeps its status: its units are sold until the money is gone for good and staff
    decide. Written by ``purchases.disputes`` alone.
    """

    # Stripe's words for a dispute that is over: https://docs.stripe.com/api/disputes/object
    CLOSED: ClassVar = ("won", "lost", "warning_closed", "prevented")

    id = models.CharField(max_length=255, primary_key=True)
    purchase = models.ForeignKey(Purchase, on_delete=models.PROTECT, related_name="disputes")
    payment_intent_id = models.CharField(max_length=255)
    amount = models.DecimalField(max_digits=15, decimal_places=3)
    currency = models.CharField(max_length=3)
    reason = models.CharField(max_length=100)
    status = models.CharField(max_length=50)
    evidence_due_by = models.DateTimeField(
        null=True, blank=True, help_text="Until then evidence can be handed in at Stripe."
    )
    funds_withdrawn_at = models.DateTimeField(null=True, blank=True)
    funds_reinstated_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField(help_text="Of the newest event, by Stripe's clock.")

    class Meta:
        ordering: ClassVar = ["evidence_due_by", "created_at"]

    def __str__(self) -> str:
        return f"{self.id}: {self.status}"

    @property
    def is_open(self) -> bool:
        return self.status not in self.CLOSED

    @property
    def has_the_money(self) -> bool:
        """Whether the bank has, so that it can't be refunded; an inquiry (`warning_…`) hasn't yet.

        https://docs.stripe.com/disputes/how-disputes-work
        """
        return self.status not in ("won", "prevented") and not self.status.startswith("warning")


class Email(models.Model):
    """A message that a buyer is to get, once for each occasion; ``purchases.mail`` sends it.

    An occasion that can come again, as a purchase's second refund, has a ``reference`` to tell.
    """

    class Occasion(models.TextChoices):
        """Those of this app; the ones above it add their own, each a pair of templates."""

        CONFIRMED = "confirmed", "the purchase is confirmed"
        LATE_PAYMENT = "late_payment", "paid too late, money on its way back"
        REFUNDED = "refunded", "a refund was sent"

    class State(models.TextChoices):
        WAITING = "waiting"
        SENT = "sent"
        GIVEN_UP = "given_up"

    purchase = models.ForeignKey(Purchase, on_delete=models.CASCADE, related_name="emails")
    occasion = models.CharField(max_length=40)
    reference = models.CharField(
        max_length=100, default="", blank=True, help_text="Which one, if there can be several."
    )
    attachments = models.JSONField(
        default=list, blank=True, help_text="Each with its name, MIME type and content (base64)."
    )
    state = models.CharField(max_length=10, choices=State.choices, default=State.WAITING)
    attempts = models.PositiveIntegerField(default=0)
    due_at = models.DateTimeField()
    error = models.TextField(blank=True)
    created_at = models.DateTimeField()
    sent_at = models.DateTimeField(null=True, blank=True)
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        on_delete=models.SET_NULL,
        related_name="+",
        help_text="Who had it sent once more; empty for what is sent by itself.",
    )

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["purchase", "occasion", "reference"], name="email_once_an_occasion"
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["due_at"], condition=Q(state="waiting"), name="email_unsent"),
        ]

    def __str__(self) -> str:
        return f"{self.occasion} for {self.purchase_id}: {self.state}"


class StripeEvent(models.Model):
    """A webhook as Stripe sent it: stored first, then processed, kept for a replay."""

    class State(models.TextChoices):
        STORED = "stored"
        PROCESSED = "processed"
        IGNORED = "ignored"
        FAILED = "failed"
        DEAD = "dead"

    id = models.CharField(max_length=255, primary_key=True)
    type = models.CharField(max_length=100)
    created = models.DateTimeField(help_text="When it happened, by Stripe's clock.")
    payload = models.JSONField()
    state = models.CharField(max_length=10, choices=State.choices, default=State.STORED)
    attempts = models.PositiveIntegerField(default=0)
    error = models.TextField(blank=True)
    received_at = models.DateTimeField()
    processed_at = models.DateTimeField(null=True, blank=True)
    due_at = models.DateTimeField(help_text="Claimed, or put off after a failure, until then.")

    class Meta:
        indexes: ClassVar = [
            models.Index(
                fields=["due_at"],
                condition=Q(state__in=["stored", "failed"]),
                name="stripe_event_unprocessed",
            ),
            # The inbox in admin, filtered and counted from the index alone: rows have payloads.
            models.Index(
                fields=["-received_at"], include=["id", "type", "state"], name="stripe_event_newest"
            ),
            # The number of those in it that wait for somebody.
            models.Index(
                fields=["state", "received_at"],
                condition=Q(state__in=["stored", "failed", "dead"]),
                name="stripe_event_stuck",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.id}"


# Django finds the models of an app in this module.
from purchases.bulk.models import BulkItem, BulkJob  # noqa: E402, F401 - as said
from purchases.subscribers.models import WebhookDelivery, WebhookEndpoint  # noqa: E402, F401 - as said
