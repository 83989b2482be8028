"""Endpoints in admin: what owners and managers do with them, and nobody else."""

import html
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from purchases.models import WebhookDelivery, WebhookEndpoint
from purchases.subscribers import endpoints
from tests.factories import MembershipFactory
from tests.test_permissions import browser_of
from tests.two_organizations import World

pytestmark = pytest.mark.django_db

ENDPOINTS = reverse("admin:purchases_webhookendpoint_changelist")
DELIVERIES = reverse("admin:purchases_webhookdelivery_changelist")
EDITORS = ("owner", "manager", "superuser")
OTHERS = ("anonymous", "buyer", "support", "rival", "ticked")


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def owner(world: World) -> Client:
    return browser_of(world["owner"])


def change_page(thing: WebhookEndpoint | WebhookDelivery) -> str:
    return reverse(f"admin:purchases_{thing._meta.model_name}_change", args=[thing.pk])


def act(client: Client, url: str, action: str, *chosen: Any) -> Any:
    sent = {"action": action, "_selected_action": [str(thing.pk) for thing in chosen]}
    return client.post(url, sent, follow=True)


def form(endpoint: WebhookEndpoint, **changes: Any) -> dict[str, Any]:
    sent = {
        "organization": endpoint.organization_id,
        "url": endpoint.url,
        "description": endpoint.description,
        "event_types": endpoint.event_types,
        "is_active": "on",
    } | changes
    return {name: value for name, value in sent.items() if value is not None}


def errors(answer: Any) -> dict[str, list[str]]:
    if answer.status_code == 302:
        return {}
    found = answer.context["adminform"].form.errors
    shown = html.unescape(answer.content.decode())
    assert all(said in shown for messages in found.values() for said in messages)
    return dict(found)


# -- The form -------------------------------------------------------------------------------------


def test_endpoint_is_entered_and_its_secret_is_found_on_its_page(
    world: World, owner: Client
) -> None:
    add = reverse("admin:purchases_webhookendpoint_add")
    assert "whsec_" not in owner.get(add).content.decode()
    sent = form(
        world.home.endpoint,
        url="http://127.0.0.1:8000/mine",
        description="CRM",
        event_types=["purchase.paid", "booking.changed"],
    )
    assert errors(owner.post(add, sent)) == {}
    endpoint = WebhookEndpoint.objects.get(description="CRM")
    assert endpoint.event_types == ["purchase.paid", "booking.changed"]
    assert endpoint.organization == world.home.organization
    assert endpoint.secret in owner.get(change_page(endpoint)).content.decode()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://10.0.0.1/hook", "10.0.0.1 is not on the public internet"),
        ("https://169.254.169.254/latest/meta-data", "public internet"),
        ("https://[::ffff:10.0.0.1]/", "public internet"),
        ("https://localhost/", "localhost is not on the public internet"),
        ("http://93.184.215.14/", "https://"),
        ("https://me:pw@93.184.215.14/", "user name and password"),
        ("https://nowhere.invalid/", "can't be found"),
        ("10.0.0.1/hook", "public internet"),
        ("no address", "valid URL"),
        ("", "required"),
    ],
)
def test_address_that_must_not_be_called_is_an_error_beside_the_field(
    world: World, owner: Client, settings: Any, url: str, said: str
) -> None:
    settings.WEBHOOK_ALLOW_LOOPBACK = False
    endpoint = world.home.endpoint
    found = errors(owner.post(change_page(endpoint), form(endpoint, url=url)))
    assert set(found) == {"url"}
    assert said in " ".join(found["url"])
    endpoint.refresh_from_db()
    assert endpoint.url == "http://127.0.0.1:9/hook"


def test_address_that_stays_is_not_looked_up_to_change_something_else(
    world: World, owner: Client, settings: Any
) -> None:
    settings.WEBHOOK_ALLOW_LOOPBACK = False
    endpoint = world.home.endpoint
    assert errors(owner.post(change_page(endpoint), form(endpoint, is_active=None))) == {}
    endpoint.refresh_from_db()
    assert not endpoint.is_active


def test_unknown_event_can_not_be_chosen(world: World, owner: Client) -> None:
    endpoint = world.home.endpoint
    sent = form(endpoint, event_types=["purchase.paid", "everything"])
    assert set(errors(owner.post(change_page(endpoint), sent))) == {"event_types"}


def test_organization_has_so_many_endpoints_and_no_more(world: World, owner: Client) -> None:
    add = reverse("admin:purchases_webhookendpoint_add")
    answers = [errors(owner.post(add, form(world.home.endpoint))) for _ in range(endpoints.MOST)]
    assert answers[:-1] == [{}] * (endpoints.MOST - 1)
    assert "at most 10" in answers[-1]["__all__"][0]


def test_form_writes_nothing_back_that_changed_meanwhile(world: World, owner: Client) -> None:
    stale = WebhookEndpoint.objects.get(pk=world.home.endpoint.pk)
    endpoints.rotate_secret(stale.pk, now=timezone.now())
    WebhookEndpoint.objects.filter(pk=stale.pk).update(due_at=timezone.now() + timedelta(days=1))
    stale.description = "New"
    stale.save()
    now = WebhookEndpoint.objects.get(pk=stale.pk)
    assert now.description == "New"
    assert now.secret != stale.secret == now.previous_secret
    assert now.due_at > timezone.now()


def test_endpoint_that_was_disabled_begins_anew(world: World, owner: Client) -> None:
    endpoint = world.home.endpoint
    later = timezone.now() + timedelta(hours=1)
    WebhookEndpoint.objects.filter(pk=endpoint.pk).update(
        is_active=False, disabled_reason="It is gone.", failing_since=timezone.now(), attempts=9,
        due_at=later,
    )  # fmt: skip
    assert "It is gone." in owner.get(change_page(endpoint)).content.decode()
    assert errors(owner.post(change_page(endpoint), form(endpoint))) == {}
    endpoint.refresh_from_db()
    assert endpoint.is_active
    assert (endpoint.disabled_reason, endpoint.failing_since, endpoint.attempts) == ("", None, 0)
    assert endpoint.due_at < later


# -- Actions --------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", [*EDITORS, *OTHERS])
def test_endpoint_is_tested_and_its_secret_replaced_by_whom_it_should(
    world: World, who: str
) -> None:
    client, endpoint = browser_of(world.people[who]), world.home.endpoint
    for action in ("send_test", "rotate_secret"):
        act(client, ENDPOINTS, action, endpoint)
    before = endpoint.secret
    endpoint.refresh_from_db()
    assert (endpoint.previous_secret == before) == (who in EDITORS)
    tests = WebhookDelivery.objects.filter(type="webhook.test")
    assert tests.count() == (who in EDITORS)
    page = client.get(change_page(endpoint))
    assert (endpoint.secret in page.content.decode()) == (who in EDITORS)
    assert endpoint.secret not in client.get(ENDPOINTS).content.decode()


def test_secret_replaced_twice_in_a_day_is_refused_in_words(world: World, owner: Client) -> None:
    act(owner, ENDPOINTS, "rotate_secret", world.home.endpoint)
    said = act(owner, ENDPOINTS, "rotate_secret", world.home.endpoint).content.decode()
    assert "within the last 24 hours" in said


def test_inactive_endpoint_is_sent_no_test(world: World, owner: Client) -> None:
    WebhookEndpoint.objects.update(is_active=False)
    said = act(owner, ENDPOINTS, "send_test", world.home.endpoint).content.decode()
    assert "make it active first" in said
    assert not WebhookDelivery.objects.filter(type="webhook.test").exists()


@pytest.mark.parametrize("how", ["button", "action"])
@pytest.mark.parametrize("who", [*EDITORS, *OTHERS])
def test_event_is_sent_again_by_whom_it_should(world: World, who: str, how: str) -> None:
    client, delivery = browser_of(world.people[who]), world.home.endpoint.deliveries.get(key="1")
    WebhookDelivery.objects.update(state="given_up")
    button = reverse("admin:purchases_webhookdelivery_resend", args=[delivery.pk])
    page = client.get(change_page(delivery), follow=True)
    assert (f'action="{button}"' in page.content.decode()) == (who in EDITORS)
    if how == "button":
        answer = client.post(button)
        expected = {"support": 403, "rival": 404, "ticked": 404}.get(who, 302)
        assert answer.status_code == expected
    else:
        act(client, DELIVERIES, "resend", delivery)
    delivery.refresh_from_db()
    assert (delivery.state == "waiting") == (who in EDITORS)


def test_manager_elsewhere_does_nothing_here(world: World) -> None:
    """Support in one organization, and a manager in another: roles count where they are held."""
    MembershipFactory(user=world["support"], role="manager")
    client, delivery = browser_of(world["support"]), world.home.endpoint.deliveries.get(key="1")
    WebhookDelivery.objects.update(state="given_up")
    act(client, DELIVERIES, "resend", delivery)
    client.post(reverse("admin:purchases_webhookdelivery_resend", args=[delivery.pk]))
    for action in ("send_test", "rotate_secret"):
        act(client, ENDPOINTS, action, world.home.endpoint)
    assert not WebhookDelivery.objects.exclude(state="given_up").exists()
    assert not WebhookEndpoint.objects.exclude(previous_secret="").exists()


def test_link_alone_sends_nothing_again(world: World, owner: Client) -> None:
    delivery = world.home.endpoint.deliveries.get(key="1")
    button = reverse("admin:purchases_webhookdelivery_resend", args=[delivery.pk])
    assert owner.get(button).status_code == 405


def test_event_of_an_inactive_endpoint_is_not_sent_again(world: World, owner: Client) -> None:
    delivery = world.home.endpoint.deliveries.get(key="1")
    WebhookEndpoint.objects.update(is_active=False)
    WebhookDelivery.objects.update(state="given_up")
    button = reverse("admin:purchases_webhookdelivery_resend", args=[delivery.pk])
    assert "make it active first" in owner.post(button, follow=True).content.decode()
    delivery.refresh_from_db()
    assert delivery.state == "given_up"


def test_endpoint_is_never_deleted(world: World) -> None:
    superuser = browser_of(world["superuser"])
    url = reverse("admin:purchases_webhookendpoint_delete", args=[world.home.endpoint.pk])
    assert superuser.post(url, {"post": "yes"}).status_code == 403
    assert act(superuser, ENDPOINTS, "delete_selected", world.home.endpoint).status_code == 200
    assert WebhookEndpoint.objects.filter(pk=world.home.endpoint.pk).exists()


def test_log_is_filtered_by_state_type_and_endpoint(world: World, owner: Client) -> None:
    WebhookEndpoint.objects.create(organization=world.home.organization, url="http://127.0.0.1/x")
    page = owner.get(ENDPOINTS).content.decode()
    assert "Home endpoint" in page
    link = f"{DELIVERIES}?endpoint__id__exact={world.home.endpoint.pk}"
    assert html.escape(link) in owner.get(change_page(world.home.endpoint)).content.decode()
    for query, shown in (
        (link, 2),
        (f"{DELIVERIES}?type=purchase.paid", 2),
        (f"{DELIVERIES}?state__exact=waiting", 2),
        (f"{DELIVERIES}?state__exact=delivered", 0),
        (f"{DELIVERIES}?type=booking.changed", 0),
    ):
        assert owner.get(query).context["cl"].result_count == shown
