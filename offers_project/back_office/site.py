"""The admin site: whoever works for an organization may enter."""

from collections.abc import Callable
from typing import Any

from csp.constants import SELF, UNSAFE_EVAL, UNSAFE_INLINE
from csp.decorators import csp_update
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
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

    def get_urls(self) -> list[URLPattern]:
        file = self.admin_view(self.dashboard_csv)
        return [path("dashboard/<slug:name>.csv", file, name="dashboard_csv"), *super().get_urls()]

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
