"""What organizers do to offers, from the list to many at once and from the page to one."""

import uuid
from collections import defaultdict
from typing import Any, cast

from django.contrib import messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from unfold.decorators import action

from offers import lifecycle, staff_log
from offers.asking import AskingForm, question
from offers.errors import DomainError
from offers.lifecycle import Step
from offers.models import Offer
from offers.scoped_admin import EDITORS, ScopedAdmin

# So many copies are made by one request, and so many titles are told of one reason.
MOST_COPIES = 50
MOST_TITLES = 50

EXPLAINED = {
    lifecycle.ARCHIVE: "Nobody can buy it any more. Who has a hold can still pay, what was sold "
    "keeps its record, and it can be restored.",
    lifecycle.RESTORE: "It is on sale again, unless it is paused, sold out or its time is over.",
    lifecycle.PAUSE: "Nobody can buy it until it is resumed. Who has a hold can still pay.",
    lifecycle.RESUME: "It is on sale again, within its time and while there is stock.",
}
STEPS = {
    "archive": lifecycle.ARCHIVE,
    "restore": lifecycle.RESTORE,
    "pause": lifecycle.PAUSE,
    "resume": lifecycle.RESUME,
}


class OfferActions(ScopedAdmin):
    """Mixed into the admin of offers; for owners and managers, since support only looks."""

    actions: Any = ("archive", "restore", "pause", "resume", "duplicate")
    actions_detail = ("pause_one", "resume_one", "archive_one", "restore_one", "duplicate_one")

    # -- On the list ------------------------------------------------------------------------------

    @action(description="Archive", permissions=["change"], icon="archive")
    def archive(self, request: HttpRequest, queryset: QuerySet[Offer]) -> None:
        self._take(request, queryset, lifecycle.ARCHIVE)

    @action(description="Restore from the archive", permissions=["change"], icon="unarchive")
    def restore(self, request: HttpRequest, queryset: QuerySet[Offer]) -> None:
        self._take(request, queryset, lifecycle.RESTORE)

    @action(description="Pause", permissions=["change"], icon="pause")
    def pause(self, request: HttpRequest, queryset: QuerySet[Offer]) -> None:
        self._take(request, queryset, lifecycle.PAUSE)

    @action(description="Resume", permissions=["change"], icon="play_arrow")
    def resume(self, request: HttpRequest, queryset: QuerySet[Offer]) -> None:
        self._take(request, queryset, lifecycle.RESUME)

    @action(description="Duplicate", permissions=["change"], icon="content_copy")
    def duplicate(self, request: HttpRequest, queryset: QuerySet[Offer]) -> HttpResponse | None:
        """Copy each; the copy of one is opened, to be changed and resumed."""
        chosen = list(self._allowed(request, queryset)[: MOST_COPIES + 1])
        if len(chosen) > MOST_COPIES:
            messages.error(request, f"Choose at most {MOST_COPIES} to duplicate at a time.")
            return None
        copies = [self._copy(request, offer.pk) for offer in chosen]
        if len(copies) == 1:
            return self._opened(request, copies[0])
        if copies:
            messages.success(request, f"{len(copies)} copies made, paused: see “… (copy)”.")
        return None

    def _take(self, request: HttpRequest, queryset: QuerySet[Offer], step: Step) -> None:
        """Take the step with all that the caller may edit, and tell what became of each."""
        allowed = self._allowed(request, queryset)
        outcome = lifecycle.take_all(
            step,
            allowed.order_by().values_list("pk", flat=True),
            now=timezone.now(),
            source="admin",
            actor=_user(request),
        )
        if outcome.changed:
            staff_log.record(_user(request), *outcome.changed, message=f"{step.done.capitalize()}.")
            messages.success(request, f"{len(outcome.changed):,} {step.done}.")
        if outcome.unchanged:
            messages.info(request, f"{outcome.unchanged:,} left as they are: {step.done} already.")
        by_reason: dict[str, list[str]] = defaultdict(list)
        for offer, refusal in outcome.refused:
            by_reason[str(refusal)].append(offer.title)
        for reason, titles in by_reason.items():
            messages.warning(request, f"{_listed(titles)}: {reason}")

    def _allowed(self, request: HttpRequest, queryset: QuerySet[Offer]) -> QuerySet[Offer]:
        allowed = self.within(request, queryset, EDITORS)
        if refused := queryset.count() - allowed.count():
            messages.error(request, f"{refused:,} left as they are: this takes a manager's role.")
        return allowed

    # -- On the page of one -----------------------------------------------------------------------

    @action(description="Pause", url_path="pause", icon="pause")
    def pause_one(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._ask(request, object_id, "Pause", lifecycle.PAUSE)

    @action(description="Resume", url_path="resume", icon="play_arrow")
    def resume_one(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._ask(request, object_id, "Resume", lifecycle.RESUME)

    @action(description="Archive", url_path="archive", icon="archive")
    def archive_one(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._ask(request, object_id, "Archive", lifecycle.ARCHIVE)

    @action(description="Restore", url_path="restore", icon="unarchive")
    def restore_one(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._ask(request, object_id, "Restore", lifecycle.RESTORE)

    @action(description="Duplicate", url_path="duplicate", icon="content_copy")
    def duplicate_one(self, request: HttpRequest, object_id: str) -> HttpResponse:
        offer = self._one(request, object_id)
        if request.method == "POST":
            return self._opened(request, self._copy(request, offer.pk))
        explanation = (
            "The copy says the same, is paused and has sold nothing. It opens, so that you can "
            "change it before you resume it."
        )
        return self._question(request, offer, "Duplicate", explanation)

    def _ask(self, request: HttpRequest, object_id: str, verb: str, step: Step) -> HttpResponse:
        """Ask, since the button is a link, and do it when the answer is posted."""
        offer = self._one(request, object_id)
        if request.method != "POST":
            return self._question(request, offer, verb, EXPLAINED[step])
        try:
            lifecycle.take(step, offer.pk, now=timezone.now(), source="admin", actor=_user(request))
        except DomainError as refusal:
            messages.error(request, f"{offer.title}: {refusal}")
        else:
            self.log_change(request, offer, f"{step.done.capitalize()}.")
            messages.success(request, f"{offer.title}: {step.done}.")
        return redirect(_page_of(offer))

    def _question(
        self, request: HttpRequest, offer: Offer, verb: str, explanation: str
    ) -> HttpResponse:
        return question(
            request,
            opts=self.opts,
            title=f"{verb} “{offer.title}”?",
            form=AskingForm(),
            button=verb,
            back=_page_of(offer),
            explanation=explanation,
            original=offer,
        )

    def _one(self, request: HttpRequest, object_id: str) -> Offer:
        """The offer, once the caller is known to be one who may edit it."""
        offer = self.get_object(request, object_id)
        if offer is None:
            raise Http404
        if not self.has_change_permission(request, offer):
            raise PermissionDenied
        return cast("Offer", offer)

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """The buttons that would do something now; the views behind them ask again."""
        offer = self.get_object(request, str(object_id))
        buttons = super().get_actions_detail(request, object_id)  # type: ignore[misc] # unfold's
        if offer is None:
            return []
        useless = {
            f"offers_offer_{name}_one" for name, step in STEPS.items() if step.is_done(offer)
        }
        if offer.is_archived:
            useless |= {"offers_offer_pause_one", "offers_offer_resume_one"}
        if not self.has_change_permission(request, offer):
            useless |= {f"offers_offer_{name}" for name in OfferActions.actions_detail}
        return [button for button in buttons if button.action_name not in useless]

    # -- Copies -----------------------------------------------------------------------------------

    def copied(self, original_id: uuid.UUID, copy: Offer) -> None:
        """What else belongs into a copy, in its transaction: for the apps above to add to."""

    def _copy(self, request: HttpRequest, offer_id: uuid.UUID) -> Offer:
        with transaction.atomic():
            copy = lifecycle.duplicate(offer_id, source="admin", actor=_user(request))
            self.copied(offer_id, copy)
            self.log_addition(request, copy, f"Copied from {offer_id}.")
        return copy

    def _opened(self, request: HttpRequest, copy: Offer) -> HttpResponse:
        messages.success(request, "This is the copy. It is paused: change it, then resume it.")
        return redirect(_page_of(copy))


def _page_of(offer: Offer) -> str:
    return reverse("admin:offers_offer_change", args=[offer.pk])


def _user(request: HttpRequest) -> User:
    return cast("User", request.user)


def _listed(titles: list[str]) -> str:
    more = f" and {len(titles) - MOST_TITLES:,} more" if len(titles) > MOST_TITLES else ""
    return "; ".join(titles[:MOST_TITLES]) + more
