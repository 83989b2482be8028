"""Times in JSON, as the serializers write them: for what ``describe`` returns."""

from datetime import datetime

from rest_framework.serializers import DateTimeField

_FIELD = DateTimeField()


def written(at: datetime | None) -> str | None:
    text: str | None = _FIELD.to_representation(at) if at else None
    return text
