"""The buttons on a purchase's page: each leads to a page that asks, and acts when that is sent.

unfold's buttons are links, so none of them does anything by itself.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, cast
from uuid import uuid4

from django import forms
from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from unfold.decorators import action

from offers.asking import AskingForm, question
from offers.errors import DomainError
from offers.scoped_admin import EDITORS, EVERYBODY, Roles, ScopedAdmin
from purchases import holds, refund_requests
from purchases.errors import IdempotencyKeyReused, PaymentProviderUnavailable
from purchases.models import Purchase, Refund
from purchases.refund_fields import RefundFields
from purchases.states import Status
from purchases.wording import amount, when


@dataclass(frozen=True)
class Button:
    """Who may, and of which purchases; the domain asks both again under its locks."""

    roles: Roles
    applies: Callable[[Purchase], bool]


class RefundForm(RefundFields, AskingForm):
    """What staff are asked before one purchase's money goes back."""

    # One form is one refund, however often it is sent.
    idempotency_key = forms.CharField(
        required=False, max_length=255, widget=forms.HiddenInput, initial=uuid4
    )


class PurchaseButtons(ScopedAdmin):
    """Mixed into the admin of purchases. A later app adds buttons to both class attributes."""

    buttons: ClassVar[dict[str, Button]] = {
        "release": Button(EVERYBODY, holds.is_releasable),
        "refund": Button(
            EDITORS, lambda purchase: purchase.status in (Status.PAID, Status.REFUND_DUE)
        ),
    }
    actions_detail: ClassVar[tuple[str, ...]] = ("release", "refund")

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        """Those that apply to the purchase and are the caller's to press."""
        purchase = self.get_object(request, unquote(object_id))
        if purchase is None:
            return []
        return [
            each
            for each in super().get_actions_detail(request, object_id)  # type: ignore[misc] # unfold's
            if self._is_shown(request, purchase, each.method.original_function_name)
        ]

    def _is_shown(self, request: HttpRequest, purchase: Purchase, name: str) -> bool:
        button = self.buttons[name]
        return button.applies(purchase) and self.allows(request, button.roles, purchase)

    def purchase_for(self, request: HttpRequest, object_id: str, name: str) -> Purchase:
        """The purchase that the button ``name`` was pressed on, or 404, or 403."""
        purchase = self.get_object(request, unquote(object_id))
        if purchase is None:
            raise Http404
        if not self.allows(request, self.buttons[name].roles, purchase):
            raise PermissionDenied
        return cast("Purchase", purchase)

    def ask(
        self,
        request: HttpRequest,
        purchase: Purchase,
        form: forms.Form,
        *,
        title: str,
        button: str,
        about: Iterable[object],
        explanation: str = "",
    ) -> HttpResponse:
        """The page that asks whether to."""
        return question(
            request,
            opts=self.opts,
            title=title,
            form=form,
            button=button,
            back=page_of(purchase),
            about=about,
            explanation=explanation,
            original=purchase,
        )

    def do(
        self, request: HttpRequest, purchase: Purchase, do: Callable[..., Any], *, logged: str
    ) -> Any:
        """Have it done, and tell why not: ``None`` then, else what ``do`` returned."""
        who = cast("User", request.user)
        try:
            outcome = do(purchase.pk, now=timezone.now(), source="admin", actor=who)
        except DomainError as refusal:
            messages.error(request, str(refusal))
            return None
        self.log_change(request, purchase, logged)
        return outcome

    # -- Release ----------------------------------------------------------------------------------

    @action(description="Release the hold", url_path="release", icon="lock_open")
    def release(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Put an unpaid hold's units back on sale; any role may, since nobody loses money by it."""
        purchase = self.purchase_for(request, object_id, "release")
        form = AskingForm(request.POST if request.method == "POST" else None)
        if not form.is_valid():
            return self.ask(
                request,
                purchase,
                form,
                title=f"Release {purchase}",
                button="Release the hold",
                explanation=(
                    "Stripe is asked first: if it was paid meanwhile, it is recorded as paid and "
                    "nothing is released. The buyer can't pay it any more afterwards."
                    if purchase.is_open_hold
                    else "Stripe is asked first: only if all of the payment was sent back, "
                    "something is released."
                ),
                about=[
                    f"On hold for {purchase.user}",
                    f"Held since {when(purchase.created_at)}",
                    f"Problem: {purchase.problem}"
                    if purchase.problem
                    else f"Ends by itself soon after {when(purchase.reserved_until)}",
                ],
            )
        if self.do(request, purchase, _release, logged="Released the hold.") is not None:
            said = f"Released: {purchase.quantity} × {purchase.offer_title} back on sale."
            messages.success(request, said)
        return redirect(page_of(purchase))

    # -- Refund -----------------------------------------------------------------------------------

    @action(description="Refund", url_path="refund", icon="currency_exchange")
    def refund(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask how much to send back, and do it as the API does."""
        purchase = self.purchase_for(request, object_id, "refund")
        form = RefundForm(request.POST if request.method == "POST" else None)
        if form.is_valid() and self._send_back(request, purchase, form):
            return redirect(page_of(purchase))
        return self.ask(
            request,
            purchase,
            form,
            title=f"Refund {purchase}",
            button="Send the money back",
            about=sums(purchase),
        )

    def _send_back(self, request: HttpRequest, purchase: Purchase, form: RefundForm) -> bool:
        key = form.cleaned_data["idempotency_key"]
        try:
            requested = refund_requests.request(
                purchase.pk,
                actor=cast("User", request.user),
                source="admin",
                now=timezone.now(),
                **form.cleaned_data | {"idempotency_key": key or None},
            )
        except IdempotencyKeyReused:
            form.add_error(None, "This page was sent before, with other values: open it again.")
        except DomainError as error:
            form.add_error(error.attr, str(error))
        else:
            status = requested.purchase.get_status_display().lower()
            what = "This was asked for before" if requested.repeated else "Asked for"
            if not requested.repeated:
                self.log_change(request, purchase, "Asked for a refund.")
            messages.success(request, f"{what}: the purchase is {status} now.")
            return True
        return False


def _release(purchase_id: Any, **who: Any) -> Purchase:
    """``holds.release``, telling staff instead of a buyer that Stripe can't be reached."""
    try:
        return holds.release(purchase_id, **who)
    except PaymentProviderUnavailable as error:
        raise PaymentProviderUnavailable(
            "Stripe could not be asked whether it was paid, so the hold stays as it is: try again "
            "in a moment."
        ) from error


def page_of(purchase: Purchase) -> str:
    return reverse("admin:purchases_purchase_change", args=[purchase.pk])


def sums(purchase: Purchase) -> list[str]:
    """What was paid, what became of it, and what is left to send back."""
    currency = purchase.currency
    lines = [f"{purchase.user} paid {amount(purchase.total_price, currency)} for {purchase}."]
    of_it = list(purchase.refunds.filter(payment_intent_id=purchase.payment_intent_id))
    for words, states in (
        ("went back already", [Refund.State.SUCCEEDED]),
        ("on the way back", [Refund.State.REQUESTED, Refund.State.PENDING]),
    ):
        if sum_ := sum(each.amount for each in of_it if each.state in states):
            lines.append(f"{amount(sum_, currency)} {words}.")
    if of_it:
        lines.append(f"{amount(refund_requests.left_of(purchase), currency)} left to send back.")
    if not purchase.total_price:
        lines.append("It was free: no money moves, but what was bought is taken back.")
    if any(dispute.is_open for dispute in purchase.disputes.all()):
        lines.append("The payment is disputed: look at the dispute before you send anything back.")
    return lines
