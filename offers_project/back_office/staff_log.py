"""Who did what, and when: the log of staff actions, to look at."""

from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.admin.models import ADDITION, CHANGE, DELETION, LogEntry
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from unfold.decorators import display

from offers.models import Membership
from offers.scoped_admin import ScopedAdmin, roles_held
from purchases.read_only_admin import ReadOnly

# Names in the filter; who is not among them is found by the search.
MOST_PEOPLE = 100


class ByPerson(admin.SimpleListFilter):
    """Members of the caller's organizations; for superusers, all members and the superusers."""

    title = "person"
    parameter_name = "person"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        members = Membership.objects.all()
        if not request.user.is_superuser:
            members = members.filter(organization__in=roles_held(request))
        people = User.objects.filter(pk__in=members.values("user"))
        if request.user.is_superuser:
            people |= User.objects.filter(is_superuser=True)
        named = people.order_by("username").values_list("pk", "username")
        return [(str(pk), name) for pk, name in named[:MOST_PEOPLE]]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        known = dict(self.lookup_choices)
        return queryset.filter(user=self.value()) if self.value() in known else queryset


@admin.register(LogEntry)
class StaffLogAdmin(ReadOnly, ScopedAdmin):
    """Superusers read all of it, members what is about their organizations' objects."""

    organization = "about__organization"
    list_display = ("action_time", "user", "kind", "subject", "what")
    list_display_links = ("action_time",)
    list_filter = (ByPerson, "action_time", "action_flag")
    search_fields = ("object_repr", "change_message", "=user__username", "=object_id")
    ordering: ClassVar = ["-pk"]
    show_full_result_count = False
    fields = ("action_time", "user", "kind", "subject", "what")
    readonly_fields = ("kind", "subject", "what")

    def get_queryset(self, request: HttpRequest) -> QuerySet[LogEntry]:
        found: QuerySet[LogEntry] = super().get_queryset(request)
        return found.select_related("user", "content_type")

    @display(
        description="action",
        ordering="action_flag",
        label={"Added": "success", "Changed": "info", "Deleted": "danger"},
    )
    def kind(self, entry: LogEntry) -> str:
        names = {ADDITION: "Added", CHANGE: "Changed", DELETION: "Deleted"}
        return names.get(entry.action_flag, "")

    @admin.display(description="object")
    def subject(self, entry: LogEntry) -> str:
        """Its page is linked to also where it is gone: that page says so."""
        kind = entry.content_type.name if entry.content_type else "object"
        url = None if entry.action_flag == DELETION else entry.get_admin_url()
        if url is None:
            return f"{kind} {entry.object_repr}"
        return format_html('{} <a href="{}">{}</a>', kind, url, entry.object_repr)

    @admin.display(description="what was done")
    def what(self, entry: LogEntry) -> str:
        return entry.get_change_message() or "-"
