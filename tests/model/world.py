"""The world of the model: a few offers, buyers, Stripe, and the webhooks on their way.

Each act picks whom it is about by number, so that the same numbers always mean the same, and
returns what is to be done, to be run alone, interrupted, or together with another act.
"""

import json
from collections import Counter
from contextlib import ExitStack
from datetime import timedelta
from decimal import Decimal
from itertools import count
from typing import Any

import requests
from django.contrib.auth.models import User
from django.db import models, transaction
from django.db.models import F
from django.utils import timezone
from rest_framework.test import APIClient

from offers.errors import OfferUnavailable
from offers.models import Event, Membership, Offer, Organization
from purchases import (
    checkout,
    holds,
    reconciliation,
    refund_requests,
    refunds,
    states,
    stripe_catalog,
    stripe_gateway,
    transitions,
    webhooks,
)
from purchases.errors import (
    HoldIsEnding,
    IdempotencyKeyInUse,
    InvalidRefundAmount,
    NotCancellable,
    NotRefundable,
    PaymentProviderUnavailable,
    TooManyOpenHolds,
)
from purchases.models import Dispute, Email, Purchase, PurchaseTransition, Refund, StripeEvent
from purchases.states import ReleaseReason, Status
from tests.conftest import receive
from tests.factories import EventFactory, MembershipFactory, OfferFactory, UserFactory
from tests.model.acts import Act, choose, expecting, ignoring
from tests.model.interruptions import Spent
from tests.model.stripe_view import StripeView, is_paid, is_processing
from tests.sandbox_process import SandboxProcess

BUYERS = 3
# Scarce, unlimited, free, and in a currency without a fraction.
OFFERS: tuple[dict[str, Any], ...] = (
    {"price": Decimal("50.00"), "currency": "USD", "inventory_total": 3},
    {"price": Decimal("12.50"), "currency": "EUR", "inventory_total": None},
    {"price": Decimal(0), "currency": "USD", "inventory_total": 4},
    {"price": Decimal(500), "currency": "JPY", "inventory_total": 5},
)
# Parts that staff or somebody in the dashboard sends back, in major units.
PARTS = {"USD": Decimal("20.00"), "EUR": Decimal("5.50"), "JPY": Decimal(200)}
MINOR = {"USD": 100, "EUR": 100, "JPY": 1}
TABLES: tuple[type[models.Model], ...] = (
    StripeEvent, Email, Dispute, Refund, PurchaseTransition, Purchase, Offer, Event, Membership,
    Organization,
)  # fmt: skip
# Beyond every delay of ours, yet within the session's time.
SOON = timedelta(minutes=10)


class World:
    """One example's world; ``look`` reads it anew after each step."""

    def __init__(self, process: SandboxProcess) -> None:
        self.process = process
        self.spent = Spent()
        self._exit = ExitStack()
        self._exit.enter_context(self.spent.installed())
        self.refund_mode = "succeed"
        process.control("reset")
        self.set_faults()
        self.stripe = StripeView(process)
        for table in TABLES:
            table._default_manager.all()._raw_delete(using="default")  # type: ignore[attr-defined]
        self.owner: User = MembershipFactory().user
        event = EventFactory(organization=Organization.objects.get())
        self.buyers: list[User] = UserFactory.create_batch(BUYERS)
        self.offers: list[Offer] = [OfferFactory(event=event, **offer) for offer in OFFERS]
        self.manager = APIClient()
        self.manager.force_authenticate(self.owner)
        # The webhooks: all there were, those on their way, those that came, those that never will.
        self.events: list[dict[str, Any]] = []
        self.bag: list[dict[str, Any]] = []
        self.delivered: list[dict[str, Any]] = []
        self.lost: list[dict[str, Any]] = []
        self.forgets_lost_events = False
        # Purchases whose sessions somebody opened or left open against our rules.
        self.tampered: set[Any] = set()
        self._keys = count()
        self.asked: list[tuple[int, int, int, str]] = []
        self.answered: dict[str, Any] = {}
        self.look()

    def close(self) -> None:
        self._exit.close()
        self.set_faults()
        self.stripe.close()

    def look(self) -> None:
        self.sessions = self.stripe.sessions()
        self.refunds_at_stripe = self.stripe.refunds()
        for event in self.stripe.new_events():
            if event["type"] in webhooks.HANDLERS:
                self.events.append(event)
                self.bag.append(event)
        self.purchases = list(Purchase.objects.order_by("created_at"))
        self.rows = list(Refund.objects.order_by("created_at", "amount"))
        self.states = dict(StripeEvent.objects.values_list("pk", "state"))

    def set_faults(self, **faults: Any) -> None:
        self.process.control("faults", {"refunds": self.refund_mode, **faults})

    # -- Buyers -----------------------------------------------------------------------------------

    def buy(self, buyer: int, offer: int, quantity: int, key: str) -> Act:
        def act() -> None:
            self.asked.append((buyer, offer, quantity, key))
            try:
                started = checkout.start(
                    user=self.buyers[buyer],
                    offer_id=self.offers[offer].pk,
                    quantity=quantity,
                    idempotency_key=key or None,
                    site_url="http://testserver",
                    now=timezone.now(),
                )
            except (OfferUnavailable, TooManyOpenHolds, IdempotencyKeyInUse):
                return
            except PaymentProviderUnavailable:
                self.answered.pop(key, None)  # the buyer was told that the key is free again
                return
            if key:
                first = self.answered.setdefault(key, started.purchase.pk)
                assert first == started.purchase.pk, "One key made two purchases."

        return act

    def fresh_key(self, wanted: bool) -> str:
        return f"key-{next(self._keys)}" if wanted else ""

    def repeat(self, pick: int) -> Act:
        return self.buy(*choose([asked for asked in self.asked if asked[3]], pick))

    def cancel(self, pick: int) -> Act:
        purchase = choose(self.open_holds() or self.purchases, pick)
        return expecting(
            lambda: holds.cancel(purchase_id=purchase.pk, user=purchase.user, now=timezone.now()),
            NotCancellable,
            PaymentProviderUnavailable,
        )

    def open_holds(self) -> list[Purchase]:
        return [purchase for purchase in self.purchases if purchase.is_open_hold]

    # -- What happens at Stripe -------------------------------------------------------------------

    def with_status(self, status: str) -> list[dict[str, Any]]:
        return [session for session in self.sessions if session["status"] == status]

    def paid(self) -> list[dict[str, Any]]:
        return [session for session in self.sessions if is_paid(session)]

    def processing(self) -> list[dict[str, Any]]:
        return [session for session in self.sessions if is_processing(session)]

    def at_stripe(self, path: str, body: dict[str, Any] | None = None) -> Act:
        """A control call; one that comes too late (409) changes nothing."""

        def act() -> None:
            try:
                self.process.control(path, body)
            except requests.HTTPError as error:
                if error.response.status_code != 409:
                    raise

        return act

    def session_act(self, name: str, pick: int) -> Act:
        which = {"settle_async": self.processing, "fail_async": self.processing,
                 "dispute": self.paid}.get(name, lambda: self.with_status("open"))  # fmt: skip
        return self.at_stripe(f"sessions/{choose(which(), pick)['id']}/{name}")

    def dashboard_refund(self, pick: int, in_part: bool) -> Act:
        session = choose(self.paid(), pick)
        currency = session["currency"].upper()
        amount = int(PARTS[currency] * MINOR[currency])
        return self.at_stripe(
            f"sessions/{session['id']}/refund", {"amount": amount} if in_part else {}
        )

    def refund_act(self, name: str, pick: int) -> Act:
        return self.at_stripe(f"refunds/{choose(self.refunds_at_stripe, pick)['id']}/{name}")

    def close_dispute(self, won: bool) -> Act:
        opened = [e for e in self.events if e["type"] == "charge.dispute.created"]
        dispute_id = choose(opened, -1)["data"]["object"]["id"]
        return self.at_stripe(f"disputes/{dispute_id}/close", {"status": "won" if won else "lost"})

    def toggle_pending_refunds(self) -> None:
        self.refund_mode = "pending" if self.refund_mode == "succeed" else "succeed"
        self.set_faults()

    # -- Webhooks ---------------------------------------------------------------------------------

    def deliver(self, pick: int) -> Act:
        event = choose(self.bag, pick)

        def act() -> None:
            if event in self.bag:
                self.bag.remove(event)
            self.delivered.append(event)
            receive(event)

        return act

    def deliver_all(self, backwards: bool = False) -> None:
        while self.bag:
            self.deliver(-1 if backwards else 0)()

    def deliver_again(self, pick: int) -> Act:
        event = choose(self.delivered, pick)
        return ignoring(lambda: receive(event))

    def replay(self, pick: int) -> Act:
        event = choose(self.delivered, pick)
        return ignoring(
            lambda: webhooks.replay(StripeEvent.objects.get(pk=event["id"]), now=timezone.now())
        )

    def lose(self, pick: int) -> None:
        event = choose(self.bag, pick)
        self.bag.remove(event)
        self.lost.append(event)

    def process_events(self) -> None:
        webhooks.process_unprocessed(now=timezone.now() + SOON)

    # -- Sweeps -----------------------------------------------------------------------------------

    def sweep(self, minutes: int) -> None:
        """What the task ``end_overdue_holds`` does, so many minutes from now."""
        now = timezone.now() + timedelta(minutes=minutes)
        due = holds.overdue(now=now)
        for ended in holds.end_all(due, reason=ReleaseReason.EXPIRED, now=now, source="sweep"):
            said = ended.error
            expected = (PaymentProviderUnavailable, HoldIsEnding)
            assert said is None or isinstance(said, expected), repr(said)
        expecting(lambda: holds.settle_stray_sessions(now=now), PaymentProviderUnavailable)()

    def send_refunds(self) -> None:
        # Each row once: by this clock a claim is over as soon as it is made.
        refunds.send_due(now=timezone.now() + timedelta(hours=2), limit=len(self.rows) + 2)

    def reconcile(self) -> list[str]:
        now = timezone.now()
        run = reconciliation.Run(
            since=now - timedelta(hours=1), now=now + timedelta(minutes=3), source="sweep"
        )
        since = stripe_gateway.events_since
        lost = {event["id"] for event in self.lost} if self.forgets_lost_events else set()
        stripe_gateway.events_since = lambda *args, **kwargs: (
            event for event in since(*args, **kwargs) if event["id"] not in lost
        )
        try:
            return [str(finding) for finding in reconciliation.reconcile(run)]
        except PaymentProviderUnavailable:
            return ["put off"]
        finally:
            stripe_gateway.events_since = since

    def leases_lapse(self) -> None:
        """The minute passes that a process which died had for what it was doing."""
        Purchase.objects.exclude(ending_until=None).update(
            ending_until=F("ending_until") - timedelta(minutes=2)
        )

    def sync_offers(self) -> None:
        stripe_catalog.sync_due_offers(now=timezone.now() + SOON)

    # -- Organizers -------------------------------------------------------------------------------

    def refund(self, pick: int, in_part: bool, restock: bool) -> Act:
        purchase = choose(
            [p for p in self.purchases if p.status in (Status.PAID, Status.REFUND_DUE)]
            or self.purchases,
            pick,
        )
        return expecting(
            lambda: refund_requests.request(
                purchase_id=purchase.pk,
                actor=self.owner,
                source="api",
                now=timezone.now(),
                amount=PARTS[purchase.currency] if in_part else None,
                restock=restock,
                reason=f"reason {len(self.rows)}",
            ),
            NotRefundable,
            InvalidRefundAmount,
        )

    def edit_offer(self, offer: int, **fields: Any) -> Act:
        def act() -> None:
            url = f"/api/v1/offers/{self.offers[offer].pk}/"
            assert self.manager.patch(url, fields, format="json").status_code in (200, 400)

        return act

    def archive(self, offer: int) -> Act:
        def act() -> None:
            url = f"/api/v1/offers/{self.offers[offer].pk}/"
            assert self.manager.delete(url).status_code == 204

        return act

    # -- What no path of ours leads to ------------------------------------------------------------

    def release_unasked(self, pick: int) -> None:
        """Give units back while the session can be paid, as a defect or a person might."""
        purchase = choose(self.open_holds(), pick)
        self.tampered.add(purchase.pk)
        with transaction.atomic():
            transitions.apply(
                transitions.lock(purchase.pk), states.RELEASE, now=timezone.now(),
                source="tests", release_reason=ReleaseReason.EXPIRED, ending_until=None,
            )  # fmt: skip

    def open_second_session(self, pick: int) -> None:
        """One purchase, two sessions that can be paid: as after an answer that was lost."""
        priced = [purchase for purchase in self.purchases if purchase.total_price]
        purchase = choose([p for p in priced if p.status == Status.PAID] or priced, pick)
        self.tampered.add(purchase.pk)
        price = {
            "currency": purchase.currency.lower(),
            "unit_amount": int(purchase.unit_price * MINOR[purchase.currency]),
            "product_data": {"name": purchase.offer_title},
        }
        self.process.client().v1.checkout.sessions.create(
            {
                "mode": "payment",
                "line_items": [{"price_data": price, "quantity": purchase.quantity}],
                "client_reference_id": str(purchase.pk),
                "success_url": "http://testserver/",
            }
        )

    # -- The end ----------------------------------------------------------------------------------

    def come_to_rest(self) -> None:
        """No more faults; everything that sweeps and webhooks can do is done, until none acts."""
        self.set_faults()
        before = None
        for _ in range(8):
            self.deliver_all()
            self.leases_lapse()
            self.process_events()
            self.sweep(16)
            self.reconcile()
            self.send_refunds()
            self.look()
            now = self._fingerprint()
            if now == before and not self.bag:
                return
            before = now
        raise AssertionError(f"It never comes to rest: {before}")

    def _fingerprint(self) -> str:
        return json.dumps(
            [
                [(str(p.pk), p.status, str(p.refunded_amount), p.problem) for p in self.purchases],
                [(str(r.pk), r.state) for r in self.rows],
                Counter(self.states.values()),
                [session["status"] for session in self.sessions],
            ]
        )
