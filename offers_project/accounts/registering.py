"""An account comes into being: only for whoever has read the letter that was sent to its address.

Organizers name people by their e-mail address, for roles and for registrations at private events.
So an address must be proved before there is an account with it.
"""

import uuid
from datetime import timedelta

from django.conf import settings
from django.contrib.auth.models import User
from django.core import signing
from django.db import IntegrityError, transaction

from offers_project.accounts.addresses import accounts_of
from offers_project.accounts.models import AccountLetter

# A dot, because a colon in a path is percent-encoded by some clients.
SIGNER = signing.TimestampSigner(sep=".", salt="accounts.registering")


def token_for(letter: AccountLetter) -> str:
    """What the letter's link has in it; made when the letter is sent, and stored nowhere."""
    return SIGNER.sign(letter.pk.hex)


def opened_by(token: str) -> AccountLetter | None:
    """The registration that ``token`` allows; None if it is no token, too old, or was used."""
    try:
        signed = SIGNER.unsign(token, max_age=timedelta(seconds=settings.PASSWORD_RESET_TIMEOUT))
    except signing.BadSignature:  # too old is a kind of it
        return None
    return AccountLetter.objects.filter(pk=uuid.UUID(hex=signed)).first()


def register(letter: AccountLetter, *, name: str, password: str) -> User | None:
    """Open the account that ``letter`` is about; None if its address has one by now.

    Called by the page of the link, outside any transaction. Locks every registration of the
    address: the first to come has them all deleted, and the others find none. Where a row was
    written meanwhile, the unique user name decides.
    """
    user = User(username=letter.address, email=letter.address, first_name=name)
    user.set_password(password)  # takes its time, so not under the lock
    try:
        with transaction.atomic():
            rights = AccountLetter.objects.filter(
                kind=AccountLetter.Kind.REGISTRATION, address=letter.address
            )
            if letter not in rights.select_for_update().order_by("pk"):
                return None
            if accounts_of(letter.address):
                return None
            user.save(force_insert=True)
            rights.delete()
    except IntegrityError:
        return None
    return user
