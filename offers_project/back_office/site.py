"""The admin site: whoever works for an organization may enter."""

from collections.abc import Callable
from typing import Any

from csp.constants import SELF, UNSAFE_EVAL, UNSAFE_INLINE
from csp.decorators import csp_update
from django.core.paginator import InvalidPage
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import path
from unfold.sites import UnfoldAdminSite

from offers.scoped_admin import roles_held


class BackOfficeSite(UnfoldAdminSite):
    """Open to staff and to members; what they see there is ``offers.scoped_admin``'s to say.

    Django asks for ``is_staff`` alone, a flag that only superusers can set: an owner who adds a
    member would have to ask for it.
    """

    def has_permission(self, request: HttpRequest) -> bool:
        user = request.user
        return user.is_active and (user.is_staff or user.is_superuser or bool(roles_held(request)))

    def admin_view(self, view: Callable[..., Any], cacheable: bool = False) -> Callable[..., Any]:  # noqa: FBT001, FBT002 - as Django has it
        """Let unfold's scripts work (docs/security.md): no page outside the admin is as open."""
        policy = {"script-src": [SELF, UNSAFE_EVAL], "style-src": [SELF, UNSAFE_INLINE]}
        guarded = super().admin_view(view, cacheable)
        return csp_update(policy)(guarded)  # type: ignore[arg-type] # django-csp's own types are narrower

    def index(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        """The dashboard."""
        # Late: it needs the apps' models, and this module is loaded before them.
        from offers_project.back_office.dashboard import pages

        return super().index(request, {**pages.context(request), **(extra_context or {})})

    def dashboard_csv(self, request: HttpRequest, name: str) -> HttpResponse:
        """One table of the dashboard as a file."""
        from offers_project.back_office.dashboard import pages  # late, as above

        return pages.csv_file(request, name)

    def extra_urls(self) -> list[Any]:
        """Pages of the site that are of no model; unfold asks for them."""
        # Late: they need the apps' models, which aren't there yet when the site is made.
        from offers_project.back_office.kill_switch import kill_switch_view

        return [
            path("kill-switch/", self.admin_view(kill_switch_view), name="kill_switch"),
            path(
                "dashboard/<slug:name>.csv",
                self.admin_view(self.dashboard_csv),
                name="dashboard_csv",
            ),
        ]

    def search(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """The search box of the navigation; a page that it doesn't have is not found."""
        try:
            return super().search(request, extra_context)
        except InvalidPage as error:
            raise Http404 from error

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        """Add what ``admin/base.html`` says on every page."""
        from offers_project.back_office import kill_switch

        context: dict[str, Any] = super().each_context(request)
        if not self.has_permission(request):
            return context | {"sales_stopped": None}
        nobody = not request.user.is_superuser and not roles_held(request)
        return context | {"sales_stopped": kill_switch.stopped(), "works_for_nobody": nobody}

    def get_sidebar_list(self, request: HttpRequest) -> list[dict[str, Any]]:
        """The navigation, with counts beside what waits for somebody (``look.py``)."""
        groups: list[dict[str, Any]] = super().get_sidebar_list(request)
        for item in (item for group in groups for item in group["items"]):
            if "waiting" in item and item["has_permission"]:
                item["badge"] = item["waiting"]() or None
        return groups
