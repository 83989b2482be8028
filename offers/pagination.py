from rest_framework.pagination import CursorPagination


class NewestFirst(CursorPagination):
    """Every list of the API: a cursor costs the same on page 1 and on page 10,000."""

    ordering: tuple[str, ...] = ("-created_at", "-id")
    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 200


class BySlug(NewestFirst):
    """For events, which have no creation time."""

    ordering = ("slug",)
