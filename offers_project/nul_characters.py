"""NUL characters in addresses and cookies, which PostgreSQL takes in no text: an error otherwise.

Django's forms and our API refuse them; the filters in the admin's addresses and Django's own
session cookie reach the database without either.
"""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest

View = Callable[[HttpRequest], HttpResponse]


def refuse_nul_characters(get_response: View) -> View:
    """Middleware, before the session's: 400 for an address with a NUL, and a cookie is dropped."""

    def refusing(request: HttpRequest) -> HttpResponse:
        # The API says itself, in its own words, what is wrong with an address.
        if not request.path_info.startswith("/api/") and _has_nul(request):
            return HttpResponseBadRequest("This address is damaged.", content_type="text/plain")
        for name in [name for name, value in request.COOKIES.items() if "\0" in value]:
            del request.COOKIES[name]
        return get_response(request)

    return refusing


def _has_nul(request: HttpRequest) -> bool:
    # The search of the admin's lists looks at its words itself, and answers on its page.
    parameters = [item for item in request.GET.lists() if item[0] != "q"]
    texts = [text for name, values in parameters for text in (name, *values)]
    return any("\0" in text for text in (request.path_info, *texts))
