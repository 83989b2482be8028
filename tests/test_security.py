"""Headers, cookies, tokens, limits on logging in; and production's settings as a whole."""

import json
from html.parser import HTMLParser
from typing import Any

import pytest
import time_machine
from django.test import Client
from django.urls import reverse

from offers.models import Event, Offer, Organization
from tests.test_health import manage
from tests.two_organizations import World

pytestmark = pytest.mark.django_db

ACCESS = "/api/v1/auth/token/"
REFRESH = "/api/v1/auth/token/refresh/"


# -- What browsers are told -----------------------------------------------------------------------


def policy(answer: Any) -> dict[str, list[str]]:
    directives = answer.headers["Content-Security-Policy"].split(";")
    return {words[0]: words[1:] for words in (directive.split() for directive in directives)}


@pytest.mark.parametrize(
    "path", ["/", "/login", "/nothing", "/admin/login/", "/api/v1/docs/", "/api/v1/events/"]
)
def test_every_answer_tells_browsers_to_be_strict(client: Client, path: str) -> None:
    answer = client.get(path)
    said = policy(answer)
    assert said["default-src"] == ["'self'"]
    assert said["object-src"] == said["base-uri"] == said["frame-ancestors"] == ["'none'"]
    assert set(said["img-src"]) == {"'self'", "https:", "data:"}
    assert not {"script-src", "style-src", "connect-src"} & set(said)
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Referrer-Policy"] == "same-origin"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "camera=()" in answer.headers["Permissions-Policy"]
    if not path.startswith("/api/v1/docs"):
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"


def test_buy_form_may_lead_to_stripe_and_in_a_local_run_to_the_sandbox(client: Client) -> None:
    allowed = policy(client.get("/"))["form-action"]
    assert set(allowed) == {"'self'", "https:", "http://127.0.0.1:*", "http://localhost:*"}


class Inline(HTMLParser):
    """What the policy would keep a browser from doing, on one page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        values = dict(attrs)
        data = values.get("type", "").endswith("json")
        if tag == "style" or (tag == "script" and "src" not in values and not data):
            self.found.append(tag)
        for name, value in attrs:
            outside = name in ("src", "href") and tag in ("script", "link", "iframe")
            if (
                name == "style"
                or name.startswith("on")
                or str(value).startswith("javascript:")
                or (outside and not str(value).startswith("/"))
            ):
                self.found.append(f"{tag} {name}={value}")


def test_no_page_needs_what_the_policy_forbids() -> None:
    world = World()
    client = Client()
    client.force_login(world["superuser"])
    session = world.home.purchase.checkout_session_id
    buyer = Client()
    buyer.force_login(world["buyer"])
    event = world.home.event.slug
    pages = [
        (Client(), "/login"),
        (Client(), "/register"),
        (Client(), "/password/reset"),
        (buyer, "/password/change"),
        (buyer, "/"),
        (buyer, f"/events/{event}/offers"),
        (buyer, f"/events/{event}/offers/success?session_id={session}"),
        (buyer, "/purchases"),
        (buyer, "/nothing"),
        (client, "/api/v1/docs/"),
        (client, "/admin/"),
        (client, "/admin/password_change/"),
    ]
    for model in (Organization, Event, Offer):
        name = f"admin:offers_{model._meta.model_name}"
        thing = world.home.objects[model]
        pages += [(client, reverse(f"{name}_{kind}")) for kind in ("changelist", "add")]
        pages += [
            (client, reverse(f"{name}_{kind}", args=[thing.pk])) for kind in ("change", "history")
        ]
    for browser, path in pages:
        answer = browser.get(path)
        assert answer.status_code == (404 if path == "/nothing" else 200)
        text = answer.content.decode()
        assert "<html" in text
        # unfold's styles are what admin's own policy lets through (BackOfficeSite.admin_view).
        found = [what for what in Inline(text).found if "style" not in what.split("=")[0]]
        found = found if path.startswith("/admin/") else Inline(text).found
        assert found == [], path


def test_docs_have_their_script_in_a_file_of_its_own(client: Client) -> None:
    script = client.get("/api/v1/docs/?script=")
    assert script.headers["Content-Type"].startswith("application/javascript")
    assert "SwaggerUIBundle" in script.content.decode()
    assert '<script src="/api/v1/docs/?script=' in client.get("/api/v1/docs/").content.decode()


# -- Production -----------------------------------------------------------------------------------

READ_SETTINGS = """
import json, warnings
from django.conf import settings
from django.test import Client
warnings.filterwarnings("ignore", "No directory at")  # static files were not collected here
answer = Client().get("/livez", secure=True, headers={"Host": "shop.example.com"})
plain = Client().get("/", headers={"Host": "shop.example.com"})
names = [f"{kind}_COOKIE_{what}" for kind in ("SESSION", "CSRF")
         for what in ("SECURE", "HTTPONLY", "SAMESITE")]
print(json.dumps({
    "settings": {name: getattr(settings, name) for name in names},
    "headers": dict(answer.headers),
    "plain": [plain.status_code, plain.headers["Location"]],
}))
"""


def test_production_has_safe_cookies_hsts_and_no_plain_http() -> None:
    ran = manage("shell", "--no-imports", "-c", READ_SETTINGS, LOG_LEVEL="ERROR")
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    for kind in ("SESSION", "CSRF"):
        cookie = [
            said["settings"][f"{kind}_COOKIE_{w}"] for w in ("SECURE", "HTTPONLY", "SAMESITE")
        ]
        assert cookie == [True, True, "Lax"]
    assert said["headers"]["Strict-Transport-Security"] == (
        "max-age=31536000; includeSubDomains; preload"
    )
    assert "http:" not in said["headers"]["Content-Security-Policy"]
    assert said["plain"] == [301, "https://shop.example.com/"]


def test_deployment_check_is_clean_with_productions_settings() -> None:
    checked = manage("check", "--deploy", "--fail-level", "WARNING")
    assert checked.returncode == 0, checked.stderr
    assert "no issues" in checked.stdout


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"STRIPE_WEBHOOK_SECRETS": ""}, "purchases.W001"),
        ({"SECRET_KEY": "short"}, "security.W009"),
        ({"SECURE_SSL_REDIRECT": "0"}, "security.W008"),
        ({"ALLOWED_HOSTS": ""}, "security.W020"),
    ],
    ids=str,
)
def test_deployment_check_names_what_is_missing(wrong: dict[str, str], said: str) -> None:
    checked = manage("check", "--deploy", "--fail-level", "WARNING", **wrong)
    assert checked.returncode == 1
    assert said in checked.stderr


# -- Tokens ---------------------------------------------------------------------------------------


def log_in(client: Any, name: str = "buyer") -> dict[str, str]:
    answer = client.post(ACCESS, {"username": name, "password": "secret"})
    assert answer.status_code == 200
    return dict(answer.json())


def works(client: Any, access: str) -> bool:
    header = {"Authorization": f"Bearer {access}"}
    status = client.get("/api/v1/purchases/", headers=header).status_code
    assert status in (200, 401)
    return bool(status == 200)


def test_access_token_lasts_an_hour_and_a_refresh_token_a_week(client_of: Any) -> None:
    World()
    client = client_of()
    with time_machine.travel("2026-01-01T12:00:00Z", tick=False) as clock:
        tokens = log_in(client)
        clock.shift(59 * 60)
        assert works(client, tokens["access"])
        clock.shift(2 * 60)
        assert not works(client, tokens["access"])
        renewed = client.post(REFRESH, {"refresh": tokens["refresh"]}).json()
        assert works(client, renewed["access"])
        clock.shift(7 * 24 * 3600)
        assert client.post(REFRESH, {"refresh": tokens["refresh"]}).status_code == 401


@pytest.mark.parametrize("what", ["new password", "deactivated", "deleted"])
def test_account_that_changed_ends_its_tokens_and_sessions(client_of: Any, what: str) -> None:
    user = World()["stranger"]
    client = client_of()
    tokens = log_in(client, "stranger")
    assert client.post(REFRESH, {"refresh": tokens["refresh"]}).status_code == 200
    browser = Client()
    browser.force_login(user)
    assert browser.get("/purchases").status_code == 200

    if what == "new password":
        user.set_password("another secret")
        user.save()
    elif what == "deactivated":
        user.is_active = False
        user.save()
    else:
        user.delete()

    assert not works(client, tokens["access"])
    refused = client.post(REFRESH, {"refresh": tokens["refresh"]})
    assert refused.status_code == 401
    assert refused.json()["errors"][0]["code"] == "not_authenticated"
    assert browser.get("/purchases").status_code == 302


# -- Logging in -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/login", "/admin/login/", ACCESS])
def test_limit_counts_every_spelling_of_a_name_as_one(client_of: Any, path: str) -> None:
    World()
    client = client_of() if path == ACCESS else Client()
    spellings = ("buyer", " buyer", "buyer ", "\tbuyer\n", "BUYER", "ｂｕｙｅｒ", "buyer\u2003")
    with time_machine.travel("2026-01-01T12:00:00Z", tick=False):
        for number in range(10):
            sent = {"username": spellings[number % len(spellings)], "password": "wrong"}
            assert client.post(path, sent).status_code in (200, 401)
        for name in spellings:
            answer = client.post(path, {"username": name, "password": "secret"})
            assert answer.status_code == 429
            assert int(answer.headers["Retry-After"]) > 0


def test_renewing_tokens_is_limited_by_address(client_of: Any, settings: Any) -> None:
    settings.LOGIN_RATE_LIMIT_IP = "3/m"
    World()
    client = client_of()
    with time_machine.travel("2026-01-01T12:00:00Z", tick=False):
        statuses = [client.post(REFRESH, {"refresh": "x"}).status_code for _ in range(4)]
    assert statuses == [401, 401, 401, 429]


def test_answers_do_not_tell_whether_an_account_exists(client_of: Any) -> None:
    world = World()
    world["stranger"].is_active = False
    world["stranger"].save()
    tries = (("buyer", "wrong"), ("nobody", "wrong"), ("stranger", "secret"))
    told = set()
    for name, password in tries:
        sent = {"username": name, "password": password}
        answer = client_of().post(ACCESS, sent)
        pages = [Client().post(path, sent) for path in ("/login", "/admin/login/")]
        errors = [page.context["form"].errors.as_json() for page in pages]
        told.add((answer.status_code, answer.content, *errors))
    assert len(told) == 1
