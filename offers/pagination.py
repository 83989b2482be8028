from datetime import datetime

from rest_framework.exceptions import NotFound
from rest_framework.pagination import Cursor, CursorPagination
from rest_framework.request import Request


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
                self.check_position(str(cursor.position))
            except ValueError as error:
                raise NotFound(self.invalid_cursor_message) from error
        return cursor

    def check_position(self, position: str) -> None:
        """Raise ``ValueError`` unless the list's first ordering field could have this value."""
        if datetime.fromisoformat(position).tzinfo is None:
            raise ValueError("A time without its zone.")


class BySlug(NewestFirst):
    """For events, which have no creation time."""

    ordering = ("slug",)

    def check_position(self, position: str) -> None:
        if not position.isprintable():
            raise ValueError("Not a slug.")
