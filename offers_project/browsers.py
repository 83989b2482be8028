"""Django's middleware about sessions, for those who have one.

A program that calls the API with a token has none: there is no session to look for, and nobody to
greet with a message.
"""

from typing import Any

from django.conf import settings
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.http import HttpRequest


class ForBrowsers:
    """Mixed into a middleware that has nothing to do for the API's callers without a cookie."""

    get_response: Any

    def __call__(self, request: HttpRequest) -> Any:
        """Pass them on. A browser's request to the API brings its session's cookie."""
        if (
            request.path_info.startswith("/api/")
            and settings.SESSION_COOKIE_NAME not in request.COOKIES
        ):
            return self.get_response(request)
        return super().__call__(request)  # type: ignore[misc]  # a mixin's: the middleware has it


class Session(ForBrowsers, SessionMiddleware):
    pass


class Authentication(ForBrowsers, AuthenticationMiddleware):
    pass


class Messages(ForBrowsers, MessageMiddleware):
    pass
