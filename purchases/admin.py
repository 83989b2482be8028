"""Admin of what is about purchases: transitions, refunds, disputes and e-mails, to look at."""

from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from offers import stripe_dashboard
from purchases import (
    inbox_admin,  # noqa: F401 - Django finds an app's pages in this module
    purchase_page,  # noqa: F401 - as above
    timeline,
    wording,
)
from purchases.bulk import admin as bulk  # noqa: F401 - as above
from purchases.models import Dispute, Email, PurchaseTransition, Refund
from purchases.read_only_admin import OfPurchases
from purchases.subscribers import admin as subscribers  # noqa: F401 - as above
from purchases.wording import NOTHING, amount, label, two_lines, when


@admin.register(PurchaseTransition)
class PurchaseTransitionAdmin(OfPurchases):
    list_display = ("made", "of_purchase", "change", "who", "reason")
    list_filter = ("to_status", "source")
    list_select_related = ("purchase__event", "actor")
    search_fields = ("=purchase__id",)
    search_help_text = "The id of a purchase"
    ordering: ClassVar = ["-id"]  # written as it happens, and indexed
    fields = ("of_purchase", "made", "change", "name", "who", "reason")
    readonly_fields = ("of_purchase", "made", "change", "who")

    @admin.display(description="when", ordering="id")
    def made(self, row: Any) -> str:
        return when(row.created_at)

    @admin.display(description="became")
    def change(self, row: PurchaseTransition) -> SafeString:
        before = wording.STATUS[row.from_status][0].lower() if row.from_status else "new"
        return two_lines(wording.status(row.to_status), f"was {before}")

    @admin.display(description="by")
    def who(self, row: PurchaseTransition) -> str:
        return timeline.by(row.actor, row.source)


@admin.register(Refund)
class RefundAdmin(OfPurchases):
    list_display = ("made", "of_purchase", "sum", "state_in_words", "why", "who", "error")
    list_filter = ("state", "cause")
    list_select_related = ("purchase__event", "requested_by")
    search_fields = ("=purchase__id", "=stripe_refund_id", "=payment_intent_id")
    search_help_text = "The id of a purchase, or Stripe's of the refund or the payment"
    fields = (
        "of_purchase", "sum", "state_in_words", "why", "who", "error", "made", "settled",
        "at_stripe", "payment", "unanswered",
    )  # fmt: skip
    readonly_fields = (
        "of_purchase", "sum", "state_in_words", "why", "who", "made", "settled", "at_stripe",
        "payment", "unanswered",
    )  # fmt: skip

    @admin.display(description="amount", ordering="amount")
    def sum(self, refund: Refund) -> str:
        return amount(refund.amount, refund.purchase.currency)

    @admin.display(description="state", ordering="state")
    def state_in_words(self, refund: Refund) -> SafeString:
        return label(*wording.REFUND_STATE[refund.state])

    @admin.display(description="cause")
    def why(self, refund: Refund) -> SafeString:
        return two_lines(refund.get_cause_display(), refund.reason)

    @admin.display(description="asked for by")
    def who(self, refund: Refund) -> str:
        return refund.requested_by.username if refund.requested_by else NOTHING

    @admin.display(description="settled")
    def settled(self, refund: Refund) -> str:
        return when(refund.settled_at)

    @admin.display(description="refund at Stripe")
    def at_stripe(self, refund: Refund) -> str:
        return stripe_dashboard.link(refund.stripe_refund_id)

    @admin.display(description="payment at Stripe")
    def payment(self, refund: Refund) -> str:
        return stripe_dashboard.link(refund.payment_intent_id)

    @admin.display(description="tries since Stripe last answered")
    def unanswered(self, refund: Refund) -> int:
        return refund.attempts


@admin.register(Dispute)
class DisputeAdmin(OfPurchases):
    """The most urgent first; they are answered in Stripe's dashboard."""

    list_display = ("shown_id", "of_purchase", "sum", "status_in_words", "answer_by", "funds")
    list_filter = ("status", "reason")
    search_fields = ("=id", "=purchase__id")
    search_help_text = "The id of a purchase, or Stripe's of the dispute"
    ordering: ClassVar = ["evidence_due_by", "created_at"]
    fields = (
        "of_purchase", "sum", "status_in_words", "answer_by", "funds", "made", "at_stripe",
        "payment",
    )  # fmt: skip
    readonly_fields = fields

    @admin.display(description="dispute", ordering="id")
    def shown_id(self, dispute: Dispute) -> str:
        return dispute.pk

    @admin.display(description="amount", ordering="amount")
    def sum(self, dispute: Dispute) -> str:
        return amount(dispute.amount, dispute.currency)

    @admin.display(description="status", ordering="status")
    def status_in_words(self, dispute: Dispute) -> SafeString:
        return two_lines(wording.dispute(dispute), wording.in_words(dispute.reason))

    @admin.display(description="answer at Stripe by", ordering="evidence_due_by")
    def answer_by(self, dispute: Dispute) -> str:
        return when(dispute.evidence_due_by) if dispute.is_open else NOTHING

    @admin.display(description="money")
    def funds(self, dispute: Dispute) -> str:
        if dispute.funds_reinstated_at:
            return f"given back {when(dispute.funds_reinstated_at)}"
        if dispute.funds_withdrawn_at:
            return f"withdrawn {when(dispute.funds_withdrawn_at)}"
        return "not touched"

    @admin.display(description="dispute at Stripe")
    def at_stripe(self, dispute: Dispute) -> str:
        return stripe_dashboard.link(dispute.pk)

    @admin.display(description="payment at Stripe")
    def payment(self, dispute: Dispute) -> str:
        return stripe_dashboard.link(dispute.payment_intent_id)


@admin.register(Email)
class EmailAdmin(OfPurchases):
    list_display = ("made", "of_purchase", "about", "state_in_words", "attempts", "error")
    list_filter = ("state",)
    search_fields = ("=purchase__id", "=reference", "=occasion")
    search_help_text = "The id of a purchase, or what it is about (as order_placed)"
    ordering: ClassVar = ["-id"]  # written as it happens, and indexed
    fields = (
        "of_purchase", "about", "reference", "attached", "state_in_words", "attempts", "error",
        "made", "due", "sent", "who",
    )  # fmt: skip
    readonly_fields = (
        "of_purchase", "about", "attached", "state_in_words", "made", "due", "sent", "who",
    )  # fmt: skip

    def get_queryset(self, request: HttpRequest) -> QuerySet[Email]:
        return super().get_queryset(request).defer("attachments")

    @admin.display(description="when", ordering="id")
    def made(self, row: Any) -> str:
        return when(row.created_at)

    @admin.display(description="about", ordering="occasion")
    def about(self, email: Email) -> str:
        return wording.in_words(email.occasion)

    @admin.display(description="state", ordering="state")
    def state_in_words(self, email: Email) -> SafeString:
        shown = label(*wording.EMAIL_STATE[email.state])
        return two_lines(shown, email.sent_at and when(email.sent_at))

    @admin.display(description="attachments")
    def attached(self, email: Email) -> str:
        return ", ".join(attachment["name"] for attachment in email.attachments)

    @admin.display(description="tried again")
    def due(self, email: Email) -> str:
        return when(email.due_at) if email.state == Email.State.WAITING else NOTHING

    @admin.display(description="sent")
    def sent(self, email: Email) -> str:
        return when(email.sent_at)

    @admin.display(description="sent again by")
    def who(self, email: Email) -> str:
        return email.requested_by.username if email.requested_by else NOTHING
