from datetime import datetime, timedelta
from typing import Any

from rest_framework.exceptions import NotFound
from rest_framework.pagination import Cursor, CursorPagination
from rest_framework.request import Request

# PostgreSQL takes no zone that is further from UTC.
FURTHEST = timedelta(hours=16)


class NewestFirst(CursorPagination):
    """Every list of the API: a cursor costs the same on page 1 and on page 10,000."""

    ordering: tuple[str, ...] = ("-created_at", "-id")
    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 200

    def decode_cursor(self, request: Request) -> Cursor | None:
        """Refuse, as 404 like any other bad cursor, one whose position is no value of the field."""
        cursor: Cursor | None = super().decode_cursor(request)
        if cursor is not None and cursor.position is not None:
            try:
                position: Any = self.checked_position(str(cursor.position))
                cursor = cursor._replace(position=position)
            except ValueError as error:
                raise NotFound(self.invalid_cursor_message) from error
        return cursor

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        """What drf-spectacular is told; DRF's own says "null" in the words of OpenAPI 3.0."""
        address = {"type": ["string", "null"], "format": "uri"}
        return {
            "type": "object",
            "description": "One page of a list.",
            "properties": {
                "next": {**address, "description": "The following page; null: this is the last."},
                "previous": {**address, "description": "The page before; null: this is the first."},
                "results": {**schema, "description": "What is on this page."},
            },
            "required": ["next", "previous", "results"],
        }

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        """What drf-spectacular is told of the query string."""
        return [
            {
                "name": self.cursor_query_param,
                "in": "query",
                "required": False,
                "description": "Part of `next` and `previous`: follow those as a whole.",
                "schema": {"type": "string"},
            },
            {
                "name": self.page_size_query_param,
                "in": "query",
                "required": False,
                "description": f"How many are on one page; above {self.max_page_size}, "
                f"{self.max_page_size} are.",
                "schema": {"type": "integer", "default": self.page_size},
            },
        ]

    def checked_position(self, position: str) -> str:
        """The position in the one way that is asked of PostgreSQL, which reads less than Python.

        Raises ``ValueError`` unless the list's first ordering field could have this value.
        """
        offset = (moment := datetime.fromisoformat(position)).utcoffset()
        if offset is None or abs(offset) >= FURTHEST:
            raise ValueError("A time without its zone, or of one that there isn't.")
        return moment.isoformat()


class BySlug(NewestFirst):
    """For events, which have no creation time."""

    ordering = ("slug",)

    def checked_position(self, position: str) -> str:
        if not position.isprintable():
            raise ValueError("Not a slug.")
        return position
