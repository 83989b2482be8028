"""What buyers of exclusive content get: a file or an address, and codes from a pool."""

from typing import Any, ClassVar

from django.core.validators import URLValidator
from django.db import models
from django.db.models import Q

from fulfillment.digital.storage import LONGEST_NAME, content_storage, random_name
from offers.models import Offer


class DigitalContent(models.Model):
    """What one offer's buyers open. Its row is also the lock on the offer's pool of codes.

    ``file`` is written by ``fulfillment.digital.content`` alone.
    """

    offer = models.OneToOneField(Offer, on_delete=models.CASCADE, related_name="digital_content")
    file = models.FileField(
        storage=content_storage, upload_to=random_name, blank=True, editable=False
    )
    file_name = models.CharField(
        max_length=LONGEST_NAME, blank=True, editable=False, help_text="What buyers see."
    )
    uploaded_at = models.DateTimeField(null=True, editable=False)
    url = models.URLField(
        "address",
        max_length=2000,
        blank=True,
        validators=[URLValidator(schemes=["https"])],
        help_text="Instead of a file: where buyers are sent to, https:// only. They "
        "see this address, and can pass it on.",
    )
    gives_access_codes = models.BooleanField(
        default=False, help_text="Each unit sold gets a code of its own from the pool."
    )
    instructions = models.TextField(
        blank=True, max_length=5000, help_text="Shown to buyers beside it, and in their e-mail."
    )
    running_low_at = models.PositiveIntegerField(
        null=True,
        editable=False,
        help_text="So few free codes are worth an alert; empty once there was one.",
    )

    class Meta:
        verbose_name_plural = "digital content"
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(file="") | Q(url=""),
                name="content_is_a_file_or_an_address",
                violation_error_message="There is a file already: remove it first.",
            ),
            models.CheckConstraint(
                condition=Q(url="") | Q(url__istartswith="https://"), name="content_url_is_https"
            ),
            models.CheckConstraint(
                condition=Q(file="") | (~Q(file_name="") & Q(uploaded_at__isnull=False)),
                name="content_file_has_a_name",
            ),
        ]

    def __str__(self) -> str:
        return f"content of {self.offer}"

    @property
    def can_be_opened(self) -> bool:
        return bool(self.file or self.url)

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Refuse a save that isn't told its fields: an upload may replace the file meanwhile."""
        if not self._state.adding and kwargs.get("update_fields") is None:
            raise TypeError("Save content with update_fields.")
        super().save(*args, **kwargs)


class AccessCode(models.Model):
    """A code of an offer's pool: free, or given to one purchase for good.

    Given, taken in and deleted by ``fulfillment.digital.codes``, under the lock of the content. A
    code that somebody has seen never becomes free again, whatever becomes of their purchase.
    """

    # Without an index of its own: it is the first column of one below.
    offer = models.ForeignKey(
        Offer, on_delete=models.CASCADE, related_name="access_codes", db_index=False
    )
    code = models.CharField(max_length=200)
    fulfillment = models.ForeignKey(
        "fulfillment.Fulfillment",
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="access_codes",
    )
    given_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering: ClassVar = ["id"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["offer", "code"], name="access_code_once_an_offer"),
            models.CheckConstraint(condition=~Q(code=""), name="access_code_is_something"),
            models.CheckConstraint(
                condition=Q(fulfillment__isnull=True, given_at__isnull=True)
                | Q(fulfillment__isnull=False, given_at__isnull=False),
                name="access_code_given_at_some_time",
            ),
        ]
        indexes: ClassVar = [
            models.Index(
                fields=["offer", "id"], condition=Q(fulfillment__isnull=True), name="free_codes"
            ),
        ]

    def __str__(self) -> str:
        return self.code


class DigitalDelivery(models.Model):
    """That a purchase was handed its content, and how often that was downloaded."""

    fulfillment = models.OneToOneField(
        "fulfillment.Fulfillment",
        on_delete=models.PROTECT,
        primary_key=True,
        related_name="digital_delivery",
    )
    content = models.ForeignKey(DigitalContent, on_delete=models.PROTECT, related_name="deliveries")
    downloads = models.PositiveIntegerField(default=0)
    last_downloaded_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name_plural = "digital deliveries"

    def __str__(self) -> str:
        return f"{self.downloads} downloads of {self.fulfillment_id}"
