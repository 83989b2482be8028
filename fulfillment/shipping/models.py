"""Merchandise on its way: a parcel, or a bag that waits at the event."""

from typing import ClassVar

from django.db import models
from django.db.models import Q

from fulfillment.codes import text
from fulfillment.models import Fulfillment
from purchases.models import DeliveryMethod


class ShippingOrder(models.Model):
    """What staff have to pack, for one paid purchase; written by ``fulfillment.shipping.orders``.

    The address is a copy: what the buyer told Stripe stays with the purchase. Whether an order is
    still to be packed is its fulfilment's and its purchase's to say (``shipping.stages``).
    """

    fulfillment = models.OneToOneField(
        Fulfillment, on_delete=models.PROTECT, related_name="shipping_order"
    )
    method = models.CharField(max_length=10, choices=DeliveryMethod.choices)
    name = models.CharField("recipient", max_length=200)
    line1 = models.CharField("address", max_length=200, blank=True)
    line2 = models.CharField("address, second line", max_length=200, blank=True)
    postal_code = models.CharField(max_length=200, blank=True)
    city = models.CharField(max_length=200, blank=True)
    state = models.CharField("state or region", max_length=200, blank=True)
    country = models.CharField(max_length=2, blank=True)
    pickup_code = models.CharField(max_length=text.LENGTH, null=True, editable=False)
    carrier = models.CharField(max_length=60, blank=True)
    tracking_number = models.CharField(max_length=100, blank=True)
    tracking_url = models.CharField(
        max_length=500, blank=True, help_text="Where the buyer follows it: an https address."
    )
    created_at = models.DateTimeField()
    shipped_at = models.DateTimeField(null=True)
    delivered_at = models.DateTimeField(null=True, help_text="Delivered, or handed over.")
    revoked_at = models.DateTimeField(
        null=True, help_text="Refunded. If it was shipped before: did it come back?"
    )
    returned_at = models.DateTimeField(null=True, help_text="It came back.")

    class Meta:
        ordering: ClassVar = ["created_at"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["pickup_code"], name="shipping_order_by_pickup_code"),
            models.CheckConstraint(
                condition=Q(method=DeliveryMethod.COLLECTION) ^ Q(pickup_code__isnull=True),
                name="shipping_order_collected_by_code",
            ),
            models.CheckConstraint(
                condition=Q(shipped_at__isnull=True) | Q(method=DeliveryMethod.SHIPPING),
                name="shipping_order_shipped_if_it_ships",
            ),
            models.CheckConstraint(
                condition=Q(returned_at__isnull=True) | Q(revoked_at__isnull=False),
                name="shipping_order_returned_after_revoked",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.fulfillment.purchase} for {self.name}"

    @property
    def is_collected(self) -> bool:
        return self.method == DeliveryMethod.COLLECTION

    @property
    def has_left(self) -> bool:
        """Whether it is out of the organizer's hands."""
        return self.shipped_at is not None or self.delivered_at is not None
