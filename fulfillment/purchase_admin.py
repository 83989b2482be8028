"""Admin of purchases with their delivery: a box, entries of the timeline, two buttons."""

from collections.abc import Iterator
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from unfold.decorators import action

from fulfillment import repeating
from fulfillment.models import Fulfillment, FulfillmentTransition
from fulfillment.states import RETRY, TRANSITIONS, Status, Type
from offers.asking import AskingForm
from offers.scoped_admin import EDITORS
from purchases import spreadsheets
from purchases.models import Purchase
from purchases.purchase_buttons import Button, PurchaseButtons, page_of
from purchases.purchase_page import PurchaseAdmin
from purchases.states import Status as PurchaseStatus
from purchases.timeline import Entry, by
from purchases.wording import in_words, label, when

STATUS: dict[str, tuple[str, str]] = {
    Status.PENDING: ("Waiting", "warning"),
    Status.PROCESSING: ("In somebody's hands", "info"),
    Status.FULFILLED: ("Delivered", "success"),
    Status.FAILED: ("Failed", "danger"),
    Status.REVOKED: ("Revoked", ""),
}
TYPE: dict[str, str] = {
    Type.DIGITAL: "Digital content",
    Type.TICKET: "Ticket upgrade",
    Type.PHYSICAL: "Merchandise",
    Type.SERVICE: "Service",
}
WORDS = {each.name: each.label for each in TRANSITIONS} | {
    "take_on": "to be delivered",
    "move": "booked another time",
}


def of(purchase: Purchase) -> Fulfillment | None:
    """Its fulfilment; the lists have joined it."""
    found: Fulfillment | None = getattr(purchase, "fulfillment", None)
    return found


def happened_to(purchase: Purchase) -> Iterator[Entry]:
    """One query, and none where there is nothing to deliver."""
    fulfillment = of(purchase)
    if fulfillment is None:
        return
    written = FulfillmentTransition.objects.filter(fulfillment=fulfillment)
    for each in written.select_related("actor"):
        words, tone = STATUS[each.to_status]
        said = WORDS.get(each.name) or in_words(each.name).lower()
        yield Entry(
            at=each.created_at,
            what=f"Fulfilment: {said}",
            about=words,
            tone=tone,
            who=by(each.actor, each.source),
            why=each.reason,
        )


class RepeatButtons(PurchaseButtons):
    """What can be done once more for a paid purchase."""

    buttons: ClassVar[dict[str, Button]] = PurchaseButtons.buttons | {
        "resend": Button(EDITORS, lambda purchase: purchase.status == PurchaseStatus.PAID),
        "retry": Button(EDITORS, lambda purchase: _can_be_retried(purchase)),
    }
    actions_detail: ClassVar[tuple[str, ...]] = (
        *PurchaseButtons.actions_detail, "resend", "retry",
    )  # fmt: skip

    @action(description="Resend the confirmation", url_path="resend", icon="forward_to_inbox")
    def resend(self, request: HttpRequest, object_id: str) -> HttpResponse:
        purchase = self.purchase_for(request, object_id, "resend")
        form = AskingForm(request.POST if request.method == "POST" else None)
        if not form.is_valid():
            return self.ask(
                request,
                purchase,
                form,
                title=f"Resend the confirmation of {purchase}",
                button="Send it again",
                explanation="The buyer gets once more the e-mail that says what they have now.",
                about=[f"To {purchase.user.email or 'nobody: this buyer has no e-mail address'}"],
            )
        occasion = self.do(
            request,
            purchase,
            repeating.resend_confirmation,
            logged="Had the confirmation sent again.",
        )
        if occasion is not None:
            said = f"The e-mail “{in_words(occasion).lower()}” will be sent in a moment."
            messages.success(request, said)
        return redirect(page_of(purchase))

    @action(description="Retry the fulfilment", url_path="retry", icon="replay")
    def retry(self, request: HttpRequest, object_id: str) -> HttpResponse:
        purchase = self.purchase_for(request, object_id, "retry")
        form = AskingForm(request.POST if request.method == "POST" else None)
        if not form.is_valid():
            fulfillment = of(purchase)
            return self.ask(
                request,
                purchase,
                form,
                title=f"Retry the fulfilment of {purchase}",
                button="Try again now",
                explanation="It is tried again at once, with all its attempts.",
                about=filter(None, [fulfillment and fulfillment.error]),
            )
        tried = self.do(
            request, purchase, repeating.retry_delivery, logged="Had the fulfilment tried again."
        )
        if tried is not None:
            messages.success(request, "The fulfilment will be tried again in a moment.")
        return redirect(page_of(purchase))


def _can_be_retried(purchase: Purchase) -> bool:
    fulfillment = of(purchase)
    paid = purchase.status == PurchaseStatus.PAID
    return paid and fulfillment is not None and fulfillment.status in RETRY.sources


admin.site.unregister(Purchase)


@admin.register(Purchase)
class DeliverablePurchaseAdmin(RepeatButtons, PurchaseAdmin):
    """The page of a purchase, with its fulfilment."""

    bulk_kinds = (*PurchaseAdmin.bulk_kinds, "resend_confirmation", "retry_delivery")
    change_form_template = "admin/purchases/purchase/with_delivery.html"
    list_filter = (*PurchaseAdmin.list_filter, "fulfillment__status")
    list_select_related = (*PurchaseAdmin.list_select_related, "fulfillment")
    export_columns: ClassVar[spreadsheets.Columns] = PurchaseAdmin.export_columns | {
        "fulfillment_type": lambda purchase: getattr(of(purchase), "type", ""),
        "fulfillment_status": lambda purchase: getattr(of(purchase), "status", ""),
    }

    def get_queryset(self, request: HttpRequest) -> QuerySet[Purchase]:
        return super().get_queryset(request).select_related(*self.list_select_related)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        purchase = kwargs.get("obj")
        fulfillment = purchase and of(purchase)
        if fulfillment:
            context["fulfillment"] = _shown(fulfillment)
        return super().render_change_form(request, context, *args, **kwargs)

    def happened_to(self, purchase: Purchase) -> list[Entry]:
        return [*super().happened_to(purchase), *happened_to(purchase)]

    def urgent(self, purchase: Purchase) -> list[tuple[str, str, str]]:
        found = super().urgent(purchase)
        fulfillment = of(purchase)
        if fulfillment is not None and fulfillment.status == Status.FAILED:
            found.append(("Not delivered", "danger", fulfillment.error or "It failed."))
        return found


def _shown(fulfillment: Fulfillment) -> dict[str, Any]:
    done = fulfillment.revoked_at or fulfillment.fulfilled_at
    if done:
        progress = f"{STATUS[fulfillment.status][0]} at {when(done)}"
    elif fulfillment.due_at:
        progress = f"Attempts: {fulfillment.attempts}. The next one at {when(fulfillment.due_at)}"
    else:
        progress = f"Attempts: {fulfillment.attempts}. No worker will try it by itself"
    return {
        "status": label(*STATUS[fulfillment.status]),
        "type": TYPE[fulfillment.type],
        "error": fulfillment.error,
        "progress": f"{progress}.",
        "url": reverse("admin:fulfillment_fulfillment_change", args=[fulfillment.pk]),
    }
