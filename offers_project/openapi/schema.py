"""drf-spectacular's view of one operation, with the errors, words and examples of this package."""

from typing import Any

from drf_spectacular.authentication import SessionScheme
from drf_spectacular.contrib.rest_framework_simplejwt import (
    SimpleJWTScheme,
    TokenRefreshSerializerExtension,
)
from drf_spectacular.utils import Direction
from drf_standardized_errors.openapi import AutoSchema
from drf_standardized_errors.openapi_utils import (
    get_flat_serializer_fields,
    get_serializer_fields_with_error_codes,
)
from inflection import camelize
from rest_framework import serializers

from offers_project.openapi import errors, operations, words

RETRY_AFTER = {
    "description": "Seconds to wait before the same request may succeed.",
    "schema": {"type": "integer", "minimum": 1},
}
CHALLENGE = {
    "description": "How to authenticate: with a token, as `Authorization: Bearer …`.",
    "schema": {"type": "string"},
}
# By the first part of the path: what the router knows no words for.
PARAMETERS = {
    ("events", "slug"): {"description": "The event's slug.", "example": "demo-conf"},
    ("offers", "id"): {"description": "The offer's id."},
    ("offers", "event"): {"example": "demo-conf"},
    ("purchases", "id"): {"description": "The purchase's id."},
}
JSON = "application/json"


class TokenScheme(SimpleJWTScheme):
    """Our authentication by token is simplejwt's own, to whoever calls."""

    target_class = "offers_project.tokens.TokenAuthentication"


class BySessionScheme(SessionScheme):
    """Our authentication by session is DRF's own, to whoever calls."""

    target_class = "offers_project.login.SessionAuthentication"


class CheckedRefreshExtension(TokenRefreshSerializerExtension):
    """Our renewal of tokens takes and answers what simplejwt's own does."""

    target_class = "offers_project.login.CheckedRefresh"

    def get_name(self, *_: Any) -> str:
        return "TokenRefresh"


class OperationSchema(AutoSchema):
    """drf-standardized-errors' schema, with one flat error shape and the codes of our domain."""

    @property
    def _words(self) -> words.Operation:
        return operations.OPERATIONS[self.get_operation_id()]

    # -- Words and examples -----------------------------------------------------------------------

    def get_summary(self) -> str:
        return self._words.summary

    def get_description(self) -> str:
        return self._words.description

    def get_tags(self) -> list[str]:
        return [self._words.tag]

    def get_operation(self, *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        operation: dict[str, Any] | None = super().get_operation(*args, **kwargs)
        if operation is not None:
            # Where it is missing, readers and generators can't tell "open" from "forgotten".
            operation.setdefault("security", [])
            for parameter in operation.get("parameters", []):
                parameter |= PARAMETERS.get((self._tokenize_path()[0], parameter["name"]), {})
            body = operation.get("requestBody")
            if body:
                body["content"][JSON]["examples"] = self._words.requests
            operation["responses"] = {
                status: self._told(status, operation["responses"][status])
                for status in sorted(operation["responses"])
            }
        return operation

    def _told(self, status: str, answer: dict[str, Any]) -> dict[str, Any]:
        told = self._words
        if status.startswith("3"):
            return answer  # which has no body, and says by itself what it means
        if status.startswith("2"):
            examples = told.answers.get(status)
            meaning = told.meanings[status]
        else:
            meaning = errors.MEANINGS[int(status)]
            examples = errors.examples(
                self.get_operation_id(), int(status), self._codes(int(status)), told.errors
            )
        if "content" in answer:
            answer["content"][JSON]["examples"] = examples
        return answer | {"description": meaning}

    def get_examples(self) -> list[Any]:
        return []

    def _get_error_response_examples(self) -> list[Any]:
        return []

    def _map_basic_serializer(self, serializer: Any, direction: Direction) -> dict[str, Any]:
        mapped: dict[str, Any] = super()._map_basic_serializer(serializer, direction)
        if direction == "response" and "properties" in mapped:
            # What a request may leave out, an answer has nevertheless.
            mapped["required"] = sorted(mapped["properties"])
        return mapped

    # -- Errors -----------------------------------------------------------------------------------

    def _refusals(self, status: int) -> set[str]:
        return {error.code for error in errors.refusals_of(self.get_operation_id(), status)}

    def _reads_body(self) -> bool:
        return self.method in ("POST", "PUT", "PATCH") and self.get_request_serializer() is not None

    def _should_add_error_response(self, responses: dict, status_code: str) -> bool:
        if status_code in responses:
            return False
        if status_code in ("409", "422"):
            return bool(self._refusals(int(status_code)))
        if status_code == "413":
            return self._reads_body()
        return super()._should_add_error_response(responses, status_code)

    def _should_add_parse_error_response(self) -> bool:
        return self._reads_body() and super()._should_add_parse_error_response()

    def _should_add_validation_error_response(self) -> bool:
        return bool(self._query_serializers()) or super()._should_add_validation_error_response()

    def _should_add_http401_error_response(self) -> bool:
        return (
            self.get_operation_id().startswith("auth_token")
            or super()._should_add_http401_error_response()
        )

    def _should_add_http403_error_response(self) -> bool:
        # A session's unsafe request without its CSRF token is refused too.
        by_session = self.method != "GET" and {"cookieAuth": []} in self.get_auth()
        refused = bool(self._refusals(403))
        return by_session or refused or super()._should_add_http403_error_response()

    def _should_add_http415_error_response(self) -> bool:
        return self._reads_body() and super()._should_add_http415_error_response()

    def _query_serializers(self) -> list[Any]:
        return [
            parameter
            for parameter in self.get_override_parameters()
            if isinstance(parameter, type) and issubclass(parameter, serializers.Serializer)
        ]

    def _determine_fields_with_error_codes(self) -> list[Any]:
        fields = get_flat_serializer_fields(self._query_serializers())
        return [
            *super()._determine_fields_with_error_codes(),
            *get_serializer_fields_with_error_codes(fields),
        ]

    def _own_codes(self, status: int) -> set[str]:
        own = self._refusals(status)
        if status == 400:
            own |= self._bad_request_codes()
        if status == 401 and self.get_operation_id() == errors.LOGIN:
            own |= errors.LOGIN_CODES
        return own

    def _codes(self, status: int) -> tuple[str, ...]:
        return tuple(sorted(errors.FRAMEWORK_CODES.get(status, set()) | self._own_codes(status)))

    def _get_error_response_serializer(self, status_code: str) -> type[serializers.Serializer]:
        status = int(status_code)
        name = camelize(self.get_operation_id()) if self._own_codes(status) else ""
        return errors.error_response(name, status, self._codes(status))

    def _bad_request_codes(self) -> set[str]:
        codes: set[str] = set()
        if self._should_add_parse_error_response():
            codes.add("parse_error")
        if self._should_add_validation_error_response():
            # What a field's own rules don't say, our rules for several fields say as `invalid`.
            fields = self._determine_fields_with_error_codes()
            by_field = self._get_validation_error_codes_by_field(fields)
            codes |= {"invalid"}.union(*by_field.values())
        return codes

    def _get_response_headers_for_code(
        self, status_code: str, direction: Direction = "response"
    ) -> dict[str, Any]:
        headers = super()._get_response_headers_for_code(status_code, direction)
        if status_code in ("429", "503"):
            headers["Retry-After"] = {**RETRY_AFTER, "required": True}
        if status_code == "409":
            headers["Retry-After"] = RETRY_AFTER
        if status_code == "401":
            headers["WWW-Authenticate"] = {**CHALLENGE, "required": True}
        return headers
