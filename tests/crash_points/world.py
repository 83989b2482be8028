"""One offer, one buyer and Stripe: where a scenario takes place."""

import json
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from functools import cached_property
from pathlib import Path
from typing import Any

import time_machine
from django.apps import apps
from django.conf import settings
from django.core import mail as django_mail
from django.db import connection, transaction
from django.utils import timezone

from offers.models import Offer
from purchases import checkout, states, transitions
from purchases.models import Purchase
from purchases.states import ReleaseReason
from tests.conftest import Sandbox, sign
from tests.conftest import receive as receive_event
from tests.crash_points import steps
from tests.crash_points.processes import APPLICATION_NAME, Life, Processes, Step
from tests.factories import OfferFactory, UserFactory
from tests.sandbox_process import wait_for

KEY = "one-request"


class Stripe(Sandbox):
    """With one client for all of its life, because making one is slow."""

    @cached_property
    def client(self) -> Any:
        return self.process.client()

    def pay_again(self, purchase: Purchase) -> None:
        """A second session of the purchase is opened past us, and paid."""
        item = {
            "price_data": {
                "currency": purchase.currency.lower(),
                "unit_amount": purchase.total_minor // purchase.quantity,
                "product_data": {"name": "again"},
            },
            "quantity": purchase.quantity,
        }
        session = self.client.v1.checkout.sessions.create(
            {
                "mode": "payment",
                "line_items": [item],
                "client_reference_id": str(purchase.pk),
                "success_url": "http://testserver/",
            }
        )
        self.act(session.id, "pay")


class World:
    """Made anew for each point; the process that dies is told by ``Step``s."""

    def __init__(self, stripe: Stripe, processes: Processes, mail: Path) -> None:
        # Quicker than to truncate; in one transaction the order of the tables doesn't matter.
        with transaction.atomic():
            for model in apps.get_models():
                if model._meta.app_label in ("purchases", "fulfillment") or model is Offer:
                    model._base_manager.all()._raw_delete(connection.alias)
        stripe.process.control("reset")
        stripe.delivered.clear()
        self._mail = mail
        django_mail.outbox.clear()
        for letter in mail.glob("*.eml"):
            letter.unlink()
        self.stripe = stripe
        self._processes = processes
        self.began = datetime.now(UTC)
        self.offer: Offer = OfferFactory()
        self.buyer = UserFactory(email="buyer@example.com")
        self.event: dict[str, Any] = {}

    # -- Processes and clocks -----------------------------------------------------------------

    def run(self, step: Step, die_at: int | str | None) -> Life:
        """Do a step in a process of its own, and wait until PostgreSQL has noticed its end."""
        life = self._processes.run(step, die_at)
        wait_for(self._connections_are_closed)
        return life

    @staticmethod
    def _connections_are_closed() -> bool:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s",
                [APPLICATION_NAME],
            )
            return cursor.fetchone() == (0,)

    def later(self, minutes: float) -> time_machine.travel:
        """So many minutes after the beginning, for us and not for Stripe."""
        return time_machine.travel(self.began + timedelta(minutes=minutes))

    @staticmethod
    def sweep() -> None:
        """All that beat starts, each once: nothing else repairs anything."""
        for name in {entry["task"]: None for entry in settings.CELERY_BEAT_SCHEDULE.values()}:
            steps.task(name=name)

    def letters(self) -> list[tuple[str, str]]:
        """Every e-mail that went out, from here or from a process, as (address, Message-ID)."""
        read = [message_from_bytes(letter.read_bytes()) for letter in self._mail.glob("*.eml")]
        return [(letter["To"], letter["Message-ID"]) for letter in read] + [
            (letter.to[0], letter.extra_headers["Message-ID"]) for letter in django_mail.outbox
        ]

    # -- The steps of this world --------------------------------------------------------------

    def purchase_step(self, name: str = "purchase") -> Step:
        return Step(
            name,
            {"user": self.buyer.pk, "offer": str(self.offer.pk), "quantity": 2, "key": KEY},
        )

    def webhook_step(self) -> Step:
        payload = json.dumps(self.event)
        return Step("webhook", {"payload": payload, "signature": sign(payload)})

    # -- What people do -----------------------------------------------------------------------

    def buy(self) -> Purchase:
        """The buyer's request, the first time or again with the same key."""
        return checkout.start(
            user=self.buyer,
            offer_id=self.offer.pk,
            quantity=2,
            idempotency_key=KEY,
            site_url="http://testserver",
            now=timezone.now(),
        ).purchase

    @property
    def purchase(self) -> Purchase:
        """The buyer's only purchase."""
        return Purchase.objects.get(user=self.buyer)

    def act(self, action: str, event: str = "", **options: Any) -> None:
        """Something happens to the purchase's session; ``event`` is the webhook to speak of."""
        self.stripe.act(self.purchase.checkout_session_id, action, **options)
        if event:
            self.event = self.stripe.events(f"checkout.session.{event}")[-1]

    def deliver_again(self) -> None:
        """Stripe had no answer to its webhook."""
        receive_event(self.event)

    def release_though_payable(self, **marks: Any) -> None:
        """Put the purchase where no path of ours leads while its session can be paid."""
        with transaction.atomic():
            transitions.apply(
                transitions.lock(self.purchase.pk),
                states.RELEASE,
                now=timezone.now(),
                source="tests",
                release_reason=ReleaseReason.EXPIRED,
                **marks,
            )

    def sell_the_rest(self) -> None:
        """Somebody else buys all that is left, and pays."""
        self.offer.refresh_from_db()
        taken = self.offer.inventory_reserved + self.offer.inventory_sold
        started = checkout.start(
            user=UserFactory(),
            offer_id=self.offer.pk,
            quantity=self.offer.inventory_total - taken,
            idempotency_key=None,
            site_url="http://testserver",
            now=timezone.now(),
        )
        session_id = started.purchase.checkout_session_id
        self.stripe.act(session_id, "pay")
        for event in self.stripe.events("checkout.session.completed"):
            if event["data"]["object"]["id"] == session_id:
                receive_event(event)
