"""What lists offer to have done to many rows: chosen there, asked about, then a job."""

from functools import partial
from typing import Any, ClassVar, cast

from django.contrib import messages
from django.contrib.admin.options import IS_POPUP_VAR
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html

from offers.errors import DomainError
from offers.scoped_admin import EVERYBODY, ScopedAdmin
from purchases.bulk import jobs, kinds
from purchases.bulk.errors import AskedForAlready
from purchases.bulk.kinds import Kind
from purchases.bulk.models import BulkJob


class BulkActions(ScopedAdmin):
    """Mixed into a list: actions on whatever is chosen, thousands of rows too.

    Shown to those who have one of the kind's roles somewhere; each row is theirs to act on, or is
    left out.
    """

    bulk_kinds: ClassVar[tuple[str, ...]] = ()

    def get_actions(self, request: HttpRequest) -> Any:
        """Those of the list itself, and ours; an override, so that ``actions`` stays the list's."""
        actions: Any = super().get_actions(request)
        if IS_POPUP_VAR in request.GET:
            return actions
        for kind in map(kinds.of, self.bulk_kinds):
            if self.allows(request, kind.roles):
                actions[kind.name] = (partial(_ask, kind), kind.name, f"{kind.title}…")
        return actions


class PurchaseActions(BulkActions):
    bulk_kinds: ClassVar[tuple[str, ...]] = ("release_holds", "refund")


def _ask(
    kind: Kind, model_admin: ScopedAdmin, request: HttpRequest, queryset: QuerySet
) -> HttpResponse | None:
    """Note what was chosen, and go to the page that asks."""
    allowed = model_admin.within(request, queryset, kind.roles)
    if kind.roles != EVERYBODY and (left := queryset.count() - allowed.count()):
        messages.error(request, f"{left:,} left as they are: this takes a manager's role.")
    job = drafted(request, kind, allowed) if allowed.exists() else None
    return redirect("admin:purchases_bulkjob_confirm", job.pk) if job else None


def drafted(request: HttpRequest, kind: Kind, chosen: QuerySet) -> BulkJob | None:
    """``jobs.draft`` for the caller; ``None`` after telling them why not."""
    try:
        return jobs.draft(kind, chosen, actor=cast("User", request.user), now=timezone.now())
    except DomainError as refusal:
        messages.error(request, str(refusal))
        return None


def with_link(refusal: AskedForAlready) -> str:
    """What the refusal says, and the way to the other job."""
    return format_html(
        '{} <a href="{}" class="underline">See that one.</a>',
        str(refusal),
        reverse("admin:purchases_bulkjob_change", args=[refusal.job_id]),
    )
