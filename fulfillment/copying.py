"""What a copy of an offer takes along of its delivery."""

import uuid

from fulfillment.bookings.models import ServiceDetails
from fulfillment.digital.models import DigitalContent
from offers.models import Offer


def copy_setup(original_id: uuid.UUID, copy: Offer) -> None:
    """Give the copy what was set up for the original's buyers; called by admin, in a transaction.

    A file isn't taken along, for it is one offer's to replace or remove; nor are codes, each of
    which is given once, nor time slots, each of which is somebody's hour.
    """
    content = DigitalContent.objects.filter(offer=original_id).first()
    if content is not None:
        DigitalContent.objects.create(
            offer=copy,
            url=content.url,
            gives_access_codes=content.gives_access_codes,
            instructions=content.instructions,
        )
    details = ServiceDetails.objects.filter(offer=original_id).first()
    if details is not None:
        ServiceDetails.objects.create(
            offer=copy,
            location=details.location,
            duration_minutes=details.duration_minutes,
            change_deadline_hours=details.change_deadline_hours,
            instructions=details.instructions,
        )
