"""The kill switch: a page for superusers, and what every page says while it is off.

It is waffle's switch ``purchases``, the same that ``waffle_switch purchases off`` sets; each
process looks at it every two seconds (``CACHES["switches"]``).
"""

from typing import Any, cast

from django import forms
from django.contrib import messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from waffle.models import Switch

from offers import catalog, staff_log
from offers.asking import AskingForm, question

STOPPING = (
    "Nobody can buy anything: the API answers 503 “purchases_disabled”, the shop's pages say so.",
    "What goes on: whoever holds units can still pay for them, webhooks are taken in, holds end.",
    "Refunds are sent, and what was paid for is delivered.",
    "It takes effect in every process within seconds, and can be undone here.",
)
STARTING = ("Whatever is on sale can be bought again, within seconds.",)


class ReasonForm(AskingForm):
    """Why; it is shown on every page of the back-office for as long as sales are stopped."""

    reason = forms.CharField(
        max_length=300, help_text="It stays on record with your name.", strip=True
    )


def stopped() -> dict[str, Any] | None:
    """What the banner says, or ``None`` while there are sales, which takes no query most times."""
    if catalog.is_selling():
        return None
    switch = Switch.objects.filter(name=catalog.SWITCH, active=False).first()
    return {"since": switch.modified, "note": switch.note} if switch else {}


def kill_switch_view(request: HttpRequest) -> HttpResponse:
    """Ask for a reason, and stop sales or start them again."""
    if not request.user.is_superuser:
        raise PermissionDenied
    # Not what this process remembers of it.
    selling = not Switch.objects.filter(name=catalog.SWITCH, active=False).exists()
    form = ReasonForm(request.POST if request.method == "POST" else None)
    if form.is_valid():
        # What was shown is what happens, also if somebody else was faster.
        stop = request.POST.get("sales") == "stop"
        _turn(stop=stop, actor=cast("User", request.user), reason=form.cleaned_data["reason"])
        done = "Sales are stopped." if stop else "Sales go on."
        messages.success(request, f"{done} Every process knows within seconds.")
        return redirect("admin:kill_switch")
    return question(
        request,
        opts=Switch._meta,
        title="Stop all sales" if selling else "Start sales again",
        form=form,
        button="Stop all sales now" if selling else "Start sales again",
        back=reverse("admin:index"),
        about=STOPPING if selling else STARTING,
        template="admin/kill_switch.html",
        selling=selling,
        variant="danger" if selling else "primary",
    )


def _turn(*, stop: bool, actor: User, reason: str) -> None:
    now = timezone.now()
    by = f"{actor.get_username()}: {reason}"
    switch, _ = Switch.objects.update_or_create(
        name=catalog.SWITCH,
        defaults={"active": not stop, "note": f"{now:%Y-%m-%d %H:%M} UTC, {by}", "modified": now},
    )
    said = "Stopped all sales" if stop else "Started sales again"
    staff_log.record(actor, switch, message=f"{said}: {reason}")
