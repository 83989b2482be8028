"""The OpenAPI document: nothing is missing in it, and its examples are true.

``make lint`` holds it against a linter's rules, ``test_api_fuzzing.py`` each answer against it.
"""

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone
from drf_spectacular.generators import SchemaGenerator
from jsonschema import Draft202012Validator, FormatChecker
from openapi_spec_validator import OpenAPIV31SpecValidator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012
from rest_framework.test import APIClient

from fulfillment.states import Status as FulfillmentStatus
from offers.models import Offer
from offers_project.openapi import document, operations
from offers_project.openapi.errors import FRAMEWORK_CODES, REFUSALS
from purchases.models import Purchase
from purchases.states import Status
from purchases.subscribers import publishing
from tests.booked_services import Service
from tests.conftest import Sandbox, buy, deliver_now
from tests.factories import (
    EventFactory,
    EventSessionFactory,
    MembershipFactory,
    OfferFactory,
    PurchaseFactory,
    RegistrationFactory,
    TicketTierFactory,
    UserFactory,
)

DOCS = Path(__file__).resolve().parents[1] / "docs"
METHODS = ("get", "post", "put", "patch", "delete")


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    """As programs get it: through JSON."""
    made = SchemaGenerator().get_schema(request=None, public=True)
    schema: dict[str, Any] = json.loads(json.dumps(made))
    return schema


def all_operations(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each operation of ours, and each webhook, with a name for it."""
    for section in ("paths", "webhooks"):
        for path, item in schema[section].items():
            for method in METHODS:
                if method in item:
                    yield f"{method.upper()} {path}", item[method]


def bodies(operation: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is sent and answered as JSON: "request" or the status, and the media type object."""
    parts = {"request": operation.get("requestBody", {}), **operation["responses"]}
    for name, part in parts.items():
        for media_type, content in part.get("content", {}).items():
            assert media_type == "application/json"
            yield name, content


def validator(schema: dict[str, Any], part: dict[str, Any]) -> Draft202012Validator:
    resource = Resource.from_contents(schema, default_specification=DRAFT202012)
    registry = Registry().with_resource("urn:document", resource)
    # A reference is to the document, wherever it stands.
    absolute = json.loads(json.dumps(part).replace('"#/', '"urn:document#/'))
    return Draft202012Validator(absolute, registry=registry, format_checker=FormatChecker())


def test_document_is_valid_openapi_3_1(schema: dict[str, Any]) -> None:
    assert schema["openapi"].startswith("3.1.")
    assert [str(error) for error in OpenAPIV31SpecValidator(schema).iter_errors()] == []


def addresses(resolver: URLResolver, prefix: str = "") -> Iterator[str]:
    for pattern in resolver.url_patterns:
        path = prefix + re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", str(pattern.pattern))
        if isinstance(pattern, URLPattern):
            yield f"/{path}"
        else:
            yield from addresses(pattern, path)


def test_every_address_of_the_api_is_in_the_document(schema: dict[str, Any]) -> None:
    ours = {path.replace("{pk}", "{id}") for path in addresses(get_resolver())}
    api = {path for path in ours if path.startswith("/api/v1/")}
    assert api - set(schema["paths"]) == {"/api/v1/schema/", "/api/v1/docs/"}
    assert set(schema["paths"]) <= api


def test_every_operation_has_its_words_and_no_words_are_left_over(schema: dict[str, Any]) -> None:
    found = {
        operation["operationId"]: operation
        for name, operation in all_operations(schema)
        if name.partition(" ")[2] in schema["paths"]
    }
    assert set(found) == set(operations.OPERATIONS)
    assert set(REFUSALS) <= set(found)
    tags = {tag["name"] for tag in schema["tags"]}
    for name, operation in all_operations(schema):
        assert operation["summary"], name
        assert operation["description"], name
        assert set(operation["tags"]) <= tags, name
        assert "security" in operation, name
        assert all(answer["description"] for answer in operation["responses"].values()), name
        for parameter in operation.get("parameters", []):
            assert parameter["description"], (name, parameter["name"])


def test_every_field_and_enum_is_described(schema: dict[str, Any]) -> None:
    schemas = schema["components"]["schemas"]
    silent = [name for name, part in schemas.items() if not part.get("description")]
    for name, part in schemas.items():
        for field, of_field in part.get("properties", {}).items():
            # A reference brings the description of what it refers to.
            if not ("description" in of_field or "$ref" in of_field):
                silent.append(f"{name}.{field}")
    assert silent == []
    for name, meanings in document.ENUMS.items():
        if name not in document.OTHER_ENUMS:
            assert list(meanings) == schemas[name]["enum"], name


def test_operations_say_who_may_call_them(schema: dict[str, Any]) -> None:
    known: list[dict[str, list[str]]] = [{"jwtAuth": []}, {"cookieAuth": []}]
    paths = schema["paths"]
    assert paths["/api/v1/purchases/"]["post"]["security"] == known
    assert paths["/api/v1/offers/"]["get"]["security"] == [*known, {}]
    assert paths["/api/v1/auth/token/"]["post"]["security"] == []
    assert paths["/api/v1/webhooks/stripe/"]["post"]["security"] == []
    assert set(schema["components"]["securitySchemes"]) == {"jwtAuth", "cookieAuth"}


def test_headers_of_the_contract_are_documented(schema: dict[str, Any]) -> None:
    purchase = schema["paths"]["/api/v1/purchases/"]["post"]
    keys = [one for one in purchase["parameters"] if one["name"] == "Idempotency-Key"]
    assert [(key["in"], key["schema"]["maxLength"]) for key in keys] == [("header", 255)]
    assert purchase["responses"]["200"]["headers"]["Idempotent-Replayed"]["required"]
    refund = schema["paths"]["/api/v1/purchases/{id}/refund/"]["post"]
    assert "Idempotent-Replayed" in refund["responses"]["202"]["headers"]
    for name, operation in all_operations(schema):
        for status, answer in operation["responses"].items():
            headers = answer.get("headers", {})
            if name.partition(" ")[2] not in schema["paths"]:
                continue
            assert ("WWW-Authenticate" in headers) == (status == "401"), (name, status)
            assert ("Retry-After" in headers) == (status in ("409", "429", "503")), (name, status)


# -- Examples -------------------------------------------------------------------------------------


def test_every_request_and_answer_has_an_example_that_fits(schema: dict[str, Any]) -> None:
    wrong = []
    for name, operation in all_operations(schema):
        for part, content in bodies(operation):
            fits = validator(schema, content["schema"])
            examples = content.get("examples") or {}
            if not examples:
                wrong.append(f"{name} {part}: no example")
            for example, shown in examples.items():
                assert shown["summary"]
                wrong += [
                    f"{name} {part} {example}: {error.json_path} {error.message}"
                    for error in fits.iter_errors(shown["value"])
                ]
    assert wrong == []


def test_every_refusal_has_an_example(schema: dict[str, Any]) -> None:
    usual = set().union(*FRAMEWORK_CODES.values())
    for name, operation in all_operations(schema):
        own = {error.code for error in REFUSALS.get(operation["operationId"], ())}
        shown = {
            error["code"]
            for status, content in bodies(operation)
            if status.isdigit() and int(status) >= 400
            for example in content["examples"].values()
            for error in example["value"]["errors"]
        }
        assert own <= shown, name
        documented = {
            code
            for status, content in bodies(operation)
            if status.isdigit() and int(status) > 400
            for code in _codes(schema, content)
        }
        # What DRF names and this service never answers.
        assert documented - shown <= usual & {"authentication_failed"}, name


def _codes(schema: dict[str, Any], content: dict[str, Any]) -> list[str]:
    schemas = schema["components"]["schemas"]
    response = schemas[content["schema"]["$ref"].rpartition("/")[2]]
    error = schemas[response["properties"]["errors"]["items"]["$ref"].rpartition("/")[2]]
    codes: list[str] = error["properties"]["code"]["enum"]
    return codes


def test_webhooks_are_those_of_the_page_about_them(schema: dict[str, Any]) -> None:
    page = (DOCS / "webhooks.md").read_text()
    told = {
        event["type"]: event
        for event in map(json.loads, re.findall(r"```json\n(.*?)\n```", page, re.DOTALL))
    }
    assert set(schema["webhooks"]) == {*publishing.TYPES, publishing.TEST}
    for event, item in schema["webhooks"].items():
        content = item["post"]["requestBody"]["content"]["application/json"]
        assert content["examples"]["sent"]["value"] == told[event]


# -- ... compared with real answers ---------------------------------------------------------------


def shape(value: Any) -> Any:
    """What kind of JSON it is: names and types, and of a list its first element."""
    if isinstance(value, dict):
        return {name: shape(part) for name, part in value.items()}
    if isinstance(value, list):
        return [shape(part) for part in value[:1]]
    if isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z$", value):
        return "time"
    return type(value).__name__


class Told:
    """The examples of one operation, to hold real answers against."""

    def __init__(self, schema: dict[str, Any], method: str, path: str) -> None:
        self.schema = schema
        self.operation = schema["paths"][f"/api/v1/{path}"][method]

    def by(self, answer: Any, example: str) -> None:
        """The answer is what the document has, and looks like ``example``; an error is equal."""
        content = self.operation["responses"][str(answer.status_code)]["content"]
        content = content["application/json"]
        got = answer.json()
        assert list(validator(self.schema, content["schema"]).iter_errors(got)) == []
        shown = content["examples"][example]["value"]
        assert shape(got) == shape(shown)
        if answer.status_code >= 400:
            assert got == shown


@pytest.fixture
def told(schema: dict[str, Any]) -> Any:
    return lambda method, path: Told(schema, method, path)


@pytest.fixture
def anybody() -> APIClient:
    return APIClient()


@pytest.mark.django_db(transaction=True)
def test_examples_of_events_and_offers_look_like_real_answers(
    told: Any, anybody: APIClient, client_of: Any
) -> None:
    now = timezone.now()
    hours = {"starts_at": now, "ends_at": now + timedelta(hours=1)}
    event = EventFactory(slug="demo-conf", **hours)
    EventSessionFactory(event=event, slug="keynote", **hours)
    TicketTierFactory(event=event, slug="standard")
    organizer = client_of(MembershipFactory(organization=event.organization).user)

    body = told("post", "offers/").operation["requestBody"]["content"]["application/json"]
    created = organizer.post("/api/v1/offers/", body["examples"]["hoodie"]["value"])
    told("post", "offers/").by(created, "created")
    offer = f"/api/v1/offers/{created.json()['id']}/"
    told("get", "events/").by(anybody.get("/api/v1/events/"), "events")
    told("get", "events/{slug}/").by(anybody.get("/api/v1/events/demo-conf/"), "event")
    told("get", "events/{slug}/").by(anybody.get("/api/v1/events/none/"), "not_found")
    listed = anybody.get("/api/v1/offers/?event=demo-conf")
    told("get", "offers/").by(listed, "offers")
    told("get", "offers/").by(anybody.get("/api/v1/offers/"), "required")
    told("get", "offers/").by(anybody.get("/api/v1/offers/?event=none"), "not_found")
    wrong = anybody.get("/api/v1/offers/?event=demo-conf&session=closing")
    told("get", "offers/").by(wrong, "invalid")
    wrong = anybody.get("/api/v1/offers/?event=demo-conf&placement=TOP")
    told("get", "offers/").by(wrong, "invalid_choice")
    told("get", "offers/{id}/").by(anybody.get(offer), "offer")
    availability = told("get", "offers/{id}/availability/")
    availability.by(anybody.get(f"{offer}availability/?quantity=2"), "yes")
    availability.by(anybody.get(f"{offer}availability/?quantity=0"), "min_value")
    change = told("patch", "offers/{id}/")
    change.by(organizer.patch(offer, {"inventory_total": 250}), "restocked")
    change.by(client_of(UserFactory()).patch(offer, {}), "permission_denied")
    change.by(organizer.patch(offer, b"{", content_type="text/plain"), "unsupported_media_type")
    change.by(organizer.patch(offer, {"title": ""}, HTTP_ACCEPT="text/html"), "not_acceptable")
    assert organizer.delete(offer).status_code == 204
    told("get", "offers/").by(anybody.get("/api/v1/offers/?event=demo-conf"), "nothing")


@pytest.mark.django_db(transaction=True)
def test_examples_of_purchases_look_like_real_answers(
    told: Any, sandbox: Sandbox, client_of: Any, anybody: APIClient, settings: Any
) -> None:
    settings.PURCHASE_RATE_LIMIT = "100/m"
    offer = OfferFactory(offer_type=Offer.Type.MERCHANDISE, inventory_total=10)
    client = client_of(UserFactory())
    create, retrieve = told("post", "purchases/"), told("get", "purchases/{id}/")

    held = buy(client, offer, 2, key="one")
    create.by(held, "held")
    create.by(buy(client, offer, 2, key="one"), "replayed")
    create.by(buy(client, offer, 1, key="one"), "idempotency_key_reused")
    create.by(buy(client, offer, 1, key="é".encode().decode("latin-1")), "invalid")
    create.by(buy(client, offer, 0), "min_value")
    create.by(buy(client, offer, 21), "max_value")
    create.by(buy(anybody, offer), "not_authenticated")
    purchase = f"/api/v1/purchases/{held.json()['id']}/"
    retrieve.by(client.get(purchase), "held")
    retrieve.by(client_of(UserFactory()).get(purchase), "not_found")
    told("post", "purchases/{id}/cancel/").by(client.post(f"{purchase}cancel/"), "cancelled")
    retrieve.by(client.get(purchase), "released")
    again = client.post(f"{purchase}cancel/")
    told("post", "purchases/{id}/cancel/").by(again, "not_cancellable")

    free = OfferFactory(price=0, event=offer.event, offer_type=Offer.Type.MERCHANDISE)
    create.by(buy(client, free), "free")
    for changes, quantity, code in (
        ({"inventory_total": 3}, 4, "insufficient_inventory"),
        ({"inventory_total": 0}, 1, "sold_out"),
        ({"is_archived": True}, 1, "offer_archived"),
        ({"expires_at": timezone.now() - timedelta(days=1)}, 1, "offer_expired"),
    ):
        create.by(buy(client, OfferFactory(**changes), quantity), code)


@pytest.mark.django_db(transaction=True)
def test_examples_of_limits_look_like_real_answers(
    told: Any, sandbox: Sandbox, client_of: Any, settings: Any
) -> None:
    settings.PURCHASE_RATE_LIMIT = "5/m"
    client, offer = client_of(UserFactory()), OfferFactory()
    create = told("post", "purchases/")
    with time_machine.travel(timezone.now(), tick=False):  # all of it in one window
        for _ in range(3):
            assert buy(client, offer).status_code == 201
        create.by(buy(client, offer), "too_many_open_holds")
        assert buy(client, OfferFactory(inventory_total=0)).status_code == 409
        limited = buy(client, offer)
    assert limited.status_code == 429
    # The seconds differ, and one is no plural.
    shown = create.operation["responses"]["429"]["content"]["application/json"]["examples"]
    said, expected = (
        re.sub(r"\d+ seconds?", "N seconds", json.dumps(value))
        for value in (limited.json(), shown["throttled"]["value"])
    )
    assert said == expected


@pytest.mark.django_db(transaction=True)
def test_examples_of_what_was_paid_for_look_like_real_answers(told: Any, client_of: Any) -> None:
    buyer = UserFactory()
    retrieve = told("get", "purchases/{id}/")

    def paid(offer_type: str, example: str) -> Purchase:
        offer = OfferFactory(offer_type=offer_type)
        purchase = PurchaseFactory(
            offer=offer, user=buyer, status=Status.PAID, delivery_method="collection"
        )
        address = f"/api/v1/purchases/{purchase.pk}/"
        deliver_now(purchase.pk)
        retrieve.by(client_of(buyer).get(address), example)
        return purchase

    physical = paid(Offer.Type.MERCHANDISE, "physical")
    organizer = MembershipFactory(organization=physical.event.organization).user
    refund = told("post", "purchases/{id}/refund/")
    address = f"/api/v1/purchases/{physical.pk}/refund/"
    refund.by(client_of(buyer).post(address, {}), "permission_denied")
    assert physical.fulfillment.status == FulfillmentStatus.PROCESSING
    refused = client_of(organizer).post(address, {"amount": "0"}).json()
    content = refund.operation["responses"]["400"]["content"]["application/json"]
    shown = json.dumps(content["examples"]["invalid_refund_amount"]["value"])
    assert json.dumps(refused) == shown.replace("78.00", "50.00")


@pytest.mark.django_db(transaction=True)
def test_examples_of_bookings_look_like_real_answers(told: Any, client_of: Any) -> None:
    service, buyer = Service(), UserFactory()
    purchase = service.sold(user=buyer)
    free, full = service.slot(hours=48, capacity=1), service.slot(hours=60)
    service.pick(service.sold(), full)
    client, address = client_of(buyer), f"/api/v1/purchases/{purchase.pk}/"

    told("get", "purchases/{id}/slots/").by(client.get(f"{address}slots/"), "slots")
    book = told("post", "purchases/{id}/booking/")
    book.by(client.post(f"{address}booking/", {"slot": "x"}), "invalid")
    book.by(client.post(f"{address}booking/", {"slot": str(purchase.pk)}), "slot_not_found")
    book.by(client.post(f"{address}booking/", {"slot": str(free.pk)}), "booked")
    given_back = client.delete(f"{address}booking/")
    told("delete", "purchases/{id}/booking/").by(given_back, "unbooked")


@pytest.mark.django_db(transaction=True)
def test_examples_of_tokens_look_like_real_answers(told: Any, anybody: APIClient) -> None:
    RegistrationFactory(user=UserFactory(username="attendee1", password="attendee1"))
    log_in, renew = told("post", "auth/token/"), told("post", "auth/token/refresh/")
    body = {"username": "attendee1", "password": "attendee1"}
    tokens = anybody.post("/api/v1/auth/token/", body)
    log_in.by(tokens, "tokens")
    wrong = anybody.post("/api/v1/auth/token/", {**body, "password": "wrong"})
    log_in.by(wrong, "no_active_account")
    log_in.by(anybody.post("/api/v1/auth/token/", {"username": "attendee1"}), "required")
    refresh = {"refresh": tokens.json()["refresh"]}
    renew.by(anybody.post("/api/v1/auth/token/refresh/", refresh), "token")
    refused = anybody.post("/api/v1/auth/token/refresh/", {"refresh": "x"})
    renew.by(refused, "not_authenticated")
