"""What attendees do to get into their account: ask for a letter, read it, follow its link."""

import re
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from django.core import mail
from django.test import Client
from django.utils import timezone

from offers_project.accounts import letters

GOOD = "seven quiet herons"
ADDRESS = "anna@example.org"


def ask_to_register(client: Client, email: str = ADDRESS, **more: Any) -> Any:
    return client.post("/register", {"email": email, "name": "Anna Wolf", **more})


def ask_for_reset(client: Client, email: str = ADDRESS, **more: Any) -> Any:
    return client.post("/password/reset", {"email": email, **more})


def send(*, later: timedelta = timedelta(0)) -> int:
    """What the worker does."""
    return letters.send_due(now=timezone.now() + later)


def outbox() -> list[Any]:
    return list(getattr(mail, "outbox", []))


def links(text: str) -> list[str]:
    """The paths, with their queries, of the links in a letter's text."""
    found = [urlsplit(url) for url in re.findall(r"https?://\S+/\S+", text)]
    return [url.path + (f"?{url.query}" if url.query else "") for url in found]


def register_link(client: Client, email: str = ADDRESS, **more: Any) -> str:
    """The link of the letter that comes when ``client`` asks for it."""
    ask_to_register(client, email, **more)
    assert send() == 1
    return next(link for link in links(outbox()[-1].body) if "/register/link/" in link)


def reset_link(client: Client, email: str = ADDRESS, **more: Any) -> str:
    ask_for_reset(client, email, **more)
    assert send() == 1
    return next(link for link in links(outbox()[-1].body) if "/password/reset/" in link)


def choose(client: Client, link: str, password: str = GOOD, **more: Any) -> Any:
    """Follow ``link`` and choose a password; the last answer, a redirect if all went well."""
    first = client.get(link)
    if first.status_code != 302:
        return first
    form = {"name": "Anna Wolf", "new_password1": password, "new_password2": password, **more}
    return client.post(first.headers["Location"], form)


def register(client: Client, email: str = ADDRESS, **more: Any) -> Any:
    """The whole way."""
    return choose(client, register_link(client, email, **more))
