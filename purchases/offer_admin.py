"""What the admin of offers shows of their holds, and how stuck ones are released."""

import uuid
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.contrib.admin.options import IS_POPUP_VAR
from django.db.models import Exists, OuterRef, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import path, reverse
from django.utils import timezone
from django.utils.http import urlencode
from unfold.enums import ActionVariant

from offers.asking import AskingForm, question
from offers.models import Offer
from offers.scoped_admin import EVERYBODY, ScopedAdmin
from purchases import holds, stuck_holds
from purchases.bulk import jobs, kinds
from purchases.bulk.actions import drafted, with_link
from purchases.bulk.errors import AskedForAlready
from purchases.models import Purchase

# More don't fit into an address, nor on the page.
OFFERS_AT_ONCE = 100


class WithOverdueHolds(admin.SimpleListFilter):
    """Offers that have holds whose time is up: the sweep ends those, so these are stuck."""

    title = "overdue holds"
    parameter_name = "overdue_holds"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "Has overdue holds"), ("no", "Has none")]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        overdue = Exists(holds.overdue(now=timezone.now()).filter(offer=OuterRef("pk")))
        match self.value():
            case "yes":
                return queryset.filter(overdue)
            case "no":
                return queryset.exclude(overdue)
        return queryset


class StuckHolds(ScopedAdmin):
    """Mixed into the admin of offers: everybody of the organization may release holds."""

    # Shown as it is to whom may see the offer; holds are given back without any other right.
    releasers: ClassVar = EVERYBODY

    def get_list_filter(self, request: HttpRequest) -> Any:
        return [*super().get_list_filter(request), WithOverdueHolds]

    def get_actions(self, request: HttpRequest) -> Any:
        actions: Any = super().get_actions(request)
        if IS_POPUP_VAR not in request.GET and self.allows(request, self.releasers):
            name = "release_stuck_holds"
            actions[name] = (_show_holds, name, "Release stuck reservations…")
        return actions

    def get_urls(self) -> list[Any]:
        page = self.admin_site.admin_view(self.stuck_holds_view)
        return [path("stuck-holds/", page, name="offers_offer_stuck_holds"), *super().get_urls()]

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Add the button to the page of an offer."""
        offer = kwargs.get("obj")
        if offer is not None and self.allows(request, self.releasers, offer):
            button = {
                "title": "Stuck reservations",
                "icon": "lock_open",
                "variant": ActionVariant.DEFAULT,
                "attrs": {},
                "dialog": None,
                "path": _page_of([offer.pk]),
            }
            context["actions_detail"] = [*(context.get("actions_detail") or []), button]
        return super().render_change_form(request, context, *args, **kwargs)

    def stuck_holds_view(self, request: HttpRequest) -> HttpResponse:
        """List the unpaid holds of the offers in the address; release those that are ticked."""
        offers = self._offers(request)
        found = stuck_holds.of_offers(offer.pk for offer in offers)
        if request.method == "POST":
            return self._release(request, found, offers)
        now = timezone.now()
        count = found.count()
        listed = stuck_holds.listed(found, now=now)
        beyond = _overdue_beyond(found, listed) if count > len(listed) else found.none()
        return question(
            request,
            opts=self.opts,
            title="Release stuck reservations",
            form=AskingForm(),
            button="Release the ticked ones",
            back=_back_to(offers),
            original=offers[0] if len(offers) == 1 else None,
            template="admin/purchases/bulk/stuck_holds.html",
            offers=offers,
            holds=listed,
            ask_again=stuck_holds.is_incomplete(listed),
            address=request.get_full_path(),
            count=count,
            beyond=beyond.count(),
            now=now,
        )

    def _offers(self, request: HttpRequest) -> list[Offer]:
        """The caller's own among the offers that the address names."""
        keys = []
        for text in request.GET.getlist("offer")[:OFFERS_AT_ONCE]:
            try:
                keys.append(uuid.UUID(text))
            except ValueError:
                raise Http404 from None
        own = self.within(request, self.get_queryset(request), self.releasers)
        offers = list(own.filter(pk__in=keys))
        if not offers:
            raise Http404
        return offers

    def _release(
        self, request: HttpRequest, found: QuerySet[Purchase], offers: list[Offer]
    ) -> HttpResponse:
        now = timezone.now()
        keys = {key for text in request.POST.getlist("hold") if (key := _key(text))}
        chosen = found.filter(pk__in=keys)
        if "beyond" in request.POST:
            # What was listed and not ticked stays.
            shown = {key for text in request.POST.getlist("shown") if (key := _key(text))}
            overdue = holds.overdue(now=now).exclude(pk__in=shown).values("pk")
            chosen = found.filter(pk__in=overdue) | chosen
        here = redirect(_page_of([offer.pk for offer in offers]))
        if not chosen.exists():
            messages.warning(request, "Nothing was ticked, or none of it is held any more.")
            return here
        job = drafted(request, kinds.of("release_holds"), chosen)
        if job is None:
            return here
        try:
            jobs.start(job, parameters={}, now=now)
        except AskedForAlready as refusal:
            messages.error(request, with_link(refusal))
            return here
        self.log_change(request, offers[0], f"Released {job.total:,} stuck reservations.")
        return redirect("admin:purchases_bulkjob_change", job.pk)


def _show_holds(
    model_admin: StuckHolds, request: HttpRequest, queryset: QuerySet[Offer]
) -> HttpResponse | None:
    own = model_admin.within(request, queryset, model_admin.releasers)
    keys = list(own.values_list("pk", flat=True)[: OFFERS_AT_ONCE + 1])
    if len(keys) > OFFERS_AT_ONCE:
        said = f"At most {OFFERS_AT_ONCE} offers at once: filter by those that have overdue holds."
        messages.error(request, said)
        return None
    return redirect(_page_of(keys)) if keys else None


def _page_of(offer_ids: list[Any]) -> str:
    query = urlencode([("offer", key) for key in offer_ids])
    return f"{reverse('admin:offers_offer_stuck_holds')}?{query}"


def _back_to(offers: list[Offer]) -> str:
    if len(offers) == 1:
        return reverse("admin:offers_offer_change", args=[offers[0].pk])
    return reverse("admin:offers_offer_changelist")


def _overdue_beyond(
    found: QuerySet[Purchase], listed: list[stuck_holds.StuckHold]
) -> QuerySet[Purchase]:
    shown = [line.purchase.pk for line in listed]
    overdue = holds.overdue(now=timezone.now()).exclude(pk__in=shown)
    return found.filter(pk__in=overdue.values("pk"))


def _key(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None
