"""The address at which a page asks how its purchase is, without saying who is asking.

To look up the session would be a query to PostgreSQL for each poll. So the page brings a token that
says "this one purchase, since then": signed, good for nothing else, and soon over.
"""

import uuid
from datetime import timedelta

from django.core import signing
from django.urls import reverse

SIGNER = signing.TimestampSigner(sep=".", salt="purchases.status_links")
# A page that waits longer than this loads itself again, which asks who it is that looks.
LIFETIME = timedelta(hours=1)


def address(purchase_id: uuid.UUID) -> str:
    """The path to poll, for the page of somebody who may see the purchase."""
    token = SIGNER.sign(purchase_id.hex).partition(SIGNER.sep)[2]
    return f"{reverse('purchase-status', kwargs={'purchase_id': purchase_id})}?token={token}"


def check(purchase_id: uuid.UUID, token: str) -> None:
    """Raise ``SignatureExpired``, or another ``BadSignature``, unless it is this purchase's."""
    SIGNER.unsign(f"{purchase_id.hex}{SIGNER.sep}{token}", max_age=LIFETIME)
