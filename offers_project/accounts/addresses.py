"""E-mail addresses as names of accounts: one way to write each, and whose it is.

Django's ``User.email`` is neither unique nor indexed, and may be written in any way. Accounts that
register by themselves have their address, as ``normal`` writes it, as user name and as e-mail
address, and the user name is unique.
"""

import re

from django.contrib.auth.models import User
from django.db.models import Q
from django.utils.encoding import punycode


def normal(text: str) -> str | None:
    """``text`` in lower case and ASCII, or None if no such address can be ours.

    PostgreSQL and Python see an "i" in some letters that mail servers tell apart from it,
    such as U+0131: whoever owns the one mailbox must not pass for the owner of the other.
    https://unicode.org/reports/tr36/#Usernames
    """
    local, at, domain = text.strip().rpartition("@")
    try:
        domain = punycode(domain)
    except UnicodeError:
        return None
    return f"{local}@{domain}".lower() if at and local.isascii() else None


def mailbox(text: str) -> str:
    """What limits count: ``me+1@…`` and ``me+2@…`` are mostly the same person's."""
    local, _, domain = (normal(text) or text.strip().lower()).rpartition("@")
    return re.sub(r"\+.*", "", local) + "@" + domain


def accounts_of(address: str) -> list[User]:
    """Every account that has this ``normal`` address as its e-mail address, closed ones too."""
    found = User.objects.filter(email__iexact=address).order_by("pk")
    return [user for user in found if normal(user.email) == address]


def user_name_for(typed: str) -> str:
    """The user name that somebody logs in with who types their e-mail address, or that itself.

    Called by the login form. An address stands for an account if exactly one that is open has it;
    a user name comes first. One query, found or not, so that the time tells nothing.
    """
    address = normal(typed)
    if address is None:
        return typed
    found = [
        user
        for user in User.objects.filter(Q(username=typed) | Q(email__iexact=address))
        if user.is_active
    ]
    if any(user.username == typed for user in found):
        return typed
    owners = [user for user in found if normal(user.email) == address]
    return owners[0].username if len(owners) == 1 else typed
