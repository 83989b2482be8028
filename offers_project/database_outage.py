"""Pages and admin while the database is away or busy: the API's answer, for people."""

from django.http import HttpRequest, HttpResponse
from django.utils.deprecation import MiddlewareMixin

from offers.errors import database_is_busy
from offers_project import http_errors


class BusyDatabaseMiddleware(MiddlewareMixin):
    """Answers 503 with ``Retry-After`` where a view, or its template, fails for want of a database.

    The API's own views do so themselves; what other middleware raises gets to
    ``http_errors.server_failed``, because Django turns it into an answer before we see it.
    """

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Called by Django with what the view raised; ``None`` leaves it to others."""
        return http_errors.busy(request, exception) if database_is_busy(exception) else None
