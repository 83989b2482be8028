"""Shortcuts for those who call the API as nearly everybody does: the answers are the same."""

from typing import Any

import pytest
from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.test import Client, RequestFactory
from django.utils.module_loading import import_string
from rest_framework.exceptions import APIException, NotAcceptable
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request

from offers import viewsets
from offers_project.negotiation import UsuallyJSON
from tests.factories import UserFactory

SESSION_MIDDLEWARE = ("Session", "Authentication", "Messages")


class PlainText(BaseRenderer):
    media_type = "text/plain"
    format = "txt"


@pytest.mark.parametrize("json_first", [True, False])
@pytest.mark.parametrize(
    "query", ["", "?format=json", "?format=xml", "?%66ormat=xml", "?event=a&format="]
)
@pytest.mark.parametrize(
    "accept",
    [
        None, "", "*/*", "application/json", "application/*", "application/json; indent=8",
        "text/html, */*;q=0.1", "text/html", "application/jsonp", "APPLICATION/JSON", ",",
    ],
)  # fmt: skip
def test_format_is_that_which_drf_itself_would_choose(
    accept: str | None, query: str, *, json_first: bool
) -> None:
    headers = {} if accept is None else {"Accept": accept}
    request = Request(RequestFactory().get(f"/api/v1/offers/{query}", headers=headers))
    renderers: list[Any] = [JSONRenderer()] if json_first else [PlainText(), JSONRenderer()]

    def chosen(negotiation: DefaultContentNegotiation) -> Any:
        try:
            return negotiation.select_renderer(request, renderers)
        except (APIException, Http404) as error:
            return type(error)

    assert chosen(UsuallyJSON()) == chosen(DefaultContentNegotiation())


def test_page_that_is_asked_for_is_no_format_of_the_api(client: Client) -> None:
    answer = client.get("/api/v1/events/", headers={"Accept": "text/html"})
    assert answer.status_code == NotAcceptable.status_code


def seen_behind(path: str, **cookies: str) -> HttpRequest:
    """The request as the middleware about sessions passes it on."""
    seen: list[HttpRequest] = []

    def view(request: HttpRequest) -> HttpResponse:
        seen.append(request)
        return HttpResponse()

    handler: Any = view
    for name in reversed(SESSION_MIDDLEWARE):
        handler = import_string(f"offers_project.browsers.{name}")(handler)
    request = RequestFactory().get(path)
    request.COOKIES = cookies
    handler(request)
    return seen[0]


@pytest.mark.parametrize(
    ("path", "cookies", "has_one"),
    [
        ("/api/v1/purchases/", {}, False),
        ("/api/v1/purchases/", {"csrftoken": "x"}, False),
        ("/api/v1/purchases/", {settings.SESSION_COOKIE_NAME: "x"}, True),
        ("/", {}, True),
        ("/admin/", {}, True),
        ("/apivity", {}, True),
    ],
)
def test_only_callers_of_the_api_without_a_cookie_have_no_session(
    path: str, cookies: dict[str, str], has_one: bool
) -> None:
    seen = seen_behind(path, **cookies)
    assert [hasattr(seen, name) for name in ("session", "user", "_messages")] == [has_one] * 3


@pytest.mark.django_db
def test_browser_uses_the_api_with_its_session_and_a_token_of_the_form() -> None:
    browser = Client(enforce_csrf_checks=True)
    assert browser.get("/api/v1/purchases/").status_code == 401
    browser.force_login(UserFactory())
    assert browser.get("/api/v1/purchases/").status_code == 200
    refused = browser.post("/api/v1/purchases/", {"offer": "x"}, content_type="application/json")
    assert refused.status_code == 403
    assert "CSRF" in refused.json()["errors"][0]["detail"]


def test_query_that_thousands_send_is_read_once_and_a_long_one_is_not_kept() -> None:
    remembered: Any = viewsets._usual
    remembered.cache_clear()
    short = [viewsets.wanted_offers("event=a&session=b") for _ in range(3)]
    assert remembered.cache_info().hits == 2
    assert [dict(wanted) for wanted in short] == [{"event": "a", "session": "b"}] * 3
    with pytest.raises(TypeError):
        short[0]["event"] = "another"  # type: ignore[index]  # that is what is tested
    assert viewsets.wanted_offers("event=a&x=" + "y" * 200)["event"] == "a"
    assert remembered.cache_info().currsize == 1


def test_refused_query_is_refused_each_time(client: Client) -> None:
    for _ in range(2):
        answer = client.get("/api/v1/offers/", {"event": "nö"})
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["attr"] == "event"


@pytest.mark.django_db
def test_purchase_of_null_hears_what_is_missing(client_of: Any) -> None:
    answer = client_of(UserFactory()).post("/api/v1/purchases/", None, format="json")
    null = client_of(UserFactory()).generic(
        "POST", "/api/v1/purchases/", "null", content_type="application/json"
    )
    for refused in (answer, null):
        assert refused.status_code == 400
        assert refused.json()["errors"][0]["attr"] == "offer"
        assert refused.json()["errors"][0]["code"] == "required"
