"""The error answers that drf-standardized-errors doesn't know, for the OpenAPI schema."""

from drf_standardized_errors.openapi_serializers import ClientErrorEnum, ServerErrorEnum
from rest_framework import serializers

from offers_project.http_errors import HTTP_STATUS


def _error_response(status: int, kind: type) -> type[serializers.Serializer]:
    """The error shape with exactly the codes that ``HTTP_STATUS`` has for ``status``."""
    codes = sorted({error.code for error, code in HTTP_STATUS.items() if code == status})
    error = type(
        f"Error{status}Serializer",
        (serializers.Serializer,),
        {
            "code": serializers.ChoiceField(choices=codes),
            "detail": serializers.CharField(),
            "attr": serializers.CharField(allow_null=True),
        },
    )
    return type(
        f"ErrorResponse{status}Serializer",
        (serializers.Serializer,),
        {
            "type": serializers.ChoiceField(choices=kind.choices),
            "errors": error(many=True),
        },
    )


Conflict = _error_response(409, ClientErrorEnum)
Unprocessable = _error_response(422, ClientErrorEnum)
Unavailable = _error_response(503, ServerErrorEnum)
