"""Admin's page of an offer's history: who changed what, from what to what."""

from typing import Any, cast

from django.contrib.admin.views.main import PAGE_VAR
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.template.defaultfilters import date
from django.template.response import TemplateResponse

from offers import money
from offers.history import TARGETS
from offers.models import EventSession, Offer, TicketTier
from offers.scoped_admin import ScopedAdmin

PER_PAGE = 50
MOMENTS = ("starts_at", "expires_at")
AMOUNTS = ("price", "original_price")


class OfferHistoryPage(ScopedAdmin):
    """Mixed into the admin of offers: for whom may see the offer; there is no way back from it."""

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: Any = None
    ) -> HttpResponse:
        offer = self.get_object(request, object_id)
        if offer is None:
            # Django's own, which its stubs don't know.
            own: Any = self
            return cast(
                "HttpResponse",
                own._get_obj_does_not_exist_redirect(request, self.opts, object_id),
            )
        if not self.has_view_permission(request, offer):
            raise PermissionDenied
        entries = Offer.history.filter(id=offer.pk).select_related("history_user")
        paginator = Paginator(entries, PER_PAGE)
        page = paginator.get_page(request.GET.get(PAGE_VAR))
        context = {
            **self.admin_site.each_context(request),
            "title": f"History of “{offer}”",
            "object": offer,
            "original": offer,
            "opts": self.opts,
            "page_obj": page,
            "page_var": PAGE_VAR,
            "page_range": paginator.get_elided_page_range(page.number),
            "pagination_required": paginator.num_pages > 1,
            "revert_disabled": True,
            "changes": _changes(entries, page),
            "object_history_list_template": "admin/offers/offer/changes.html",
            **(extra_context or {}),
        }
        return TemplateResponse(request, "simple_history/object_history.html", context)


def _changes(entries: Any, page: Any) -> list[dict[str, Any]]:
    """The page's entries, newest first, each with what it changed of the one before it."""
    shown = list(entries[page.start_index() - 1 : page.end_index() + 1]) if page else []
    names = _names(shown)
    return [
        {
            "when": entry.history_date,
            "who": entry.history_user,
            "how": entry.history_change_reason or "",
            "is_new": entry.history_type == "+",
            "differences": [] if before is None else list(_differences(before, entry, names)),
        }
        for entry, before in zip(shown, [*shown[1:], None], strict=True)
    ][: len(page.object_list)]


def _differences(before: Any, after: Any, names: dict[str, dict[int, str]]) -> Any:
    for name in (*(field.name for field in after.tracked_fields), *TARGETS):
        field: Any = Offer._meta.get_field(name)
        attribute = name if name in TARGETS else field.attname
        if getattr(before, attribute) != getattr(after, attribute):
            label = str(getattr(field, "verbose_name", name)).capitalize()
            yield label, *(_shown(entry, name, attribute, names) for entry in (before, after))


def _shown(entry: Any, name: str, attribute: str, names: dict[str, dict[int, str]]) -> str:
    value = getattr(entry, attribute)
    if name in TARGETS:
        return ", ".join(_named(names[name], key) for key in value) or "everyone"
    if name == "inventory_total" and value is None:
        return "unlimited"
    if value is None or value in ("", []):
        return "nothing"
    if name == "ticket_tier":
        return _named(names["target_ticket_tiers"], value)
    if name in AMOUNTS and entry.currency in money.CURRENCIES:
        return f"{money.format_amount(value, entry.currency)} {entry.currency}"
    if name in MOMENTS:
        return f"{date(value, 'j M Y, H:i')} UTC"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, list) else str(value)


def _named(names: dict[int, str], key: int) -> str:
    return names.get(key, f"one that was deleted ({key})")


def _names(entries: list[Any]) -> dict[str, dict[int, str]]:
    """The titles of all sessions and tiers that the entries name."""
    sessions = {key for entry in entries for key in entry.target_sessions}
    tiers = {key for entry in entries for key in entry.target_ticket_tiers}
    tiers |= {entry.ticket_tier_id for entry in entries if entry.ticket_tier_id is not None}
    return {
        name: dict(model.objects.filter(pk__in=keys).values_list("pk", "title"))
        for name, model, keys in (
            ("target_sessions", EventSession, sessions),
            ("target_ticket_tiers", TicketTier, tiers),
        )
    }
