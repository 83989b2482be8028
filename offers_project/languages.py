"""In which language somebody is answered: pages in theirs, the API and the back-office in English.

A program compares what the API says, and organizers' pages are written in English only: Django's
own words among ours would be of two languages.
"""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.middleware.locale import LocaleMiddleware
from django.utils import translation

ENGLISH_ONLY = ("/api/", "/admin/", "/check-in", "/livez", "/readyz", "/metrics")


def page_language(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Middleware: the visitor's choice (a cookie), else what their browser asks for."""
    by_visitor = LocaleMiddleware(get_response)

    def answer(request: HttpRequest) -> HttpResponse:
        # Also of a page: the thread's next request must not begin in this visitor's language.
        with translation.override("en"):
            if request.path_info.startswith(ENGLISH_ONLY):
                return get_response(request)
            return by_visitor(request)

    return answer
