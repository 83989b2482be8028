"""An organization in the middle of its season, for lists, bars and charts to show.

Made by the functions that the site itself uses, at the times at which it would have happened.
"""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.contrib.auth.models import User
from django.test import RequestFactory
from django.utils import timezone

from fulfillment import queue
from offers import heartbeat, impressions, lifecycle
from offers.models import Event, Membership, Offer
from purchases.models import Purchase
from purchases.states import Status
from tests.factories import (
    DigitalContentFactory,
    DisputeFactory,
    EventFactory,
    MembershipFactory,
    OfferFactory,
    OrganizationFactory,
    PurchaseFactory,
    RegistrationFactory,
    TicketTierFactory,
    TimeSlotFactory,
    UserFactory,
)

BUYERS = (
    "lena.fischer", "tom.okafor", "ines.duarte", "yuki.tanaka", "paul.moreau", "sara.lind",
    "amir.haddad", "greta.olsen", "marco.ricci", "nora.byrne", "jan.kowalski", "eva.novak",
)  # fmt: skip
OFFERS: tuple[tuple[str, str, str, str | None, int | None, str, str], ...] = (
    # title, type, price, price before, stock, placement, what it says
    ("VIP upgrade", "TICKET_UPGRADE", "60", "80", 30, "CHECKOUT", "Front rows and the lounge."),
    ("Festival hoodie", "MERCHANDISE", "39", None, 120, "IN_EVENT", "Organic cotton, two colours."),
    ("Enamel mug", "MERCHANDISE", "12.50", None, 16, "IN_EVENT", "For tea at the quay."),
    ("Poster, signed", "MERCHANDISE", "25", None, 40, "IN_EVENT", "Printed by hand."),
    (
        "All recordings",
        "EXCLUSIVE_CONTENT",
        "19",
        "29",
        None,
        "POST_PURCHASE",
        "For a year.",
    ),
    ("Lantern workshop", "SERVICE", "22", None, 24, "IN_EVENT", "Half an hour, material included."),
    ("Backstage tour", "SERVICE", "35", None, 20, "IN_EVENT", "With the stage crew."),
    ("Winter scarf", "MERCHANDISE", "28", None, 60, "IN_EVENT", "Merino wool."),
)
# How many of each offer were sold today, yesterday, and so on back.
SOLD: tuple[tuple[int, ...], ...] = (
    (1, 2, 1, 2, 3, 1, 1, 0, 2, 1),
    (3, 4, 2, 3, 1, 2, 2, 1, 3, 2),
    (1, 2, 3, 2, 2, 1, 1, 2, 1, 1),
    (1, 0, 1, 2, 0, 1, 0, 1, 1, 0),
    (2, 3, 1, 1, 2, 4, 3, 1, 1, 2),
    (1, 1, 0, 2, 1, 0, 1, 0, 1, 0),
    (2, 1, 1, 0, 0, 2, 1, 0, 1, 1),
    (0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
)
VISITS_A_DAY = 30


class Shop:
    """``manager`` runs it; ``held`` is a hold that is stuck, ``failed`` wasn't delivered."""

    def __init__(self) -> None:
        self.now = timezone.now()
        self.organization = OrganizationFactory(name="Harbour Festivals", slug="harbour")
        self.manager: User = MembershipFactory(
            organization=self.organization,
            user=UserFactory(username="mara.jensen"),
            role=Membership.Role.MANAGER,
        ).user
        self.days = self._event("Harbour Days", 40)
        self.lights = self._event("Winter Lights", 70)
        self.offers = [self._offer(*each) for each in OFFERS]
        self.buyers = [UserFactory(username=name, email=f"{name}@example.com") for name in BUYERS]
        upgrade, hoodie, _, poster, recordings, workshop, tour, scarf = self.offers
        self.guests = iter([UserFactory(username=f"guest{n}") for n in range(1, 30)])
        for buyer in self.buyers:
            RegistrationFactory(event=self.days, user=buyer, ticket_tier=self.standard)
        DigitalContentFactory(offer=recordings)
        for offer in (workshop, tour):
            for _ in range(3):
                TimeSlotFactory(offer=offer)
        for offer, days in zip(self.offers, SOLD, strict=True):
            self._sell(offer, days)
        self._count_visits()
        begun = self.now - timedelta(days=len(SOLD[0]))
        Offer.objects.filter(event__organization=self.organization).update(created_at=begun)
        heartbeat.beat(now=self.now)

        yesterday = self.now - timedelta(days=1)
        PurchaseFactory(
            offer=poster, user=self.buyers[0], status=Status.REFUNDED, created_at=yesterday
        )
        disputed = self.buy(hoodie, self.buyers[1], at=yesterday)
        DisputeFactory(purchase=disputed)
        # Of an event at which this buyer has no ticket to exchange.
        self.failed = self.buy(upgrade, UserFactory(username="olga.petrova"), at=yesterday)
        self.held = self.hold(tour, self.buyers[2], at=self.now - timedelta(hours=2))
        self.hold(hoodie, self.buyers[3], at=self.now - timedelta(minutes=4))
        self.hold(poster, self.buyers[4], at=self.now - timedelta(minutes=1))
        lifecycle.take(lifecycle.PAUSE, scarf.pk, now=self.now, source="admin", actor=self.manager)

    def _event(self, title: str, days: int) -> Event:
        event: Event = EventFactory(
            organization=self.organization,
            title=title,
            slug=title.lower().replace(" ", "-"),
            starts_at=self.now + timedelta(days=days),
        )
        self.standard = TicketTierFactory(event=event, title="Standard", slug="standard")
        self.vip = TicketTierFactory(event=event, title="VIP", slug="vip")
        return event

    def _offer(
        self, title: str, type_: str, price: str, before: str | None, stock: int | None,
        placement: str, description: str,
    ) -> Offer:  # fmt: skip
        event = self.lights if title == "Winter scarf" else self.days
        more: dict[str, Any] = {}
        if type_ == Offer.Type.TICKET_UPGRADE:
            more["ticket_tier"] = event.ticket_tiers.get(slug="vip")
        if type_ == Offer.Type.MERCHANDISE:
            more |= {"shipping_countries": ["DE", "DK", "SE"], "allows_collection": True}
        offer: Offer = OfferFactory(
            event=event, title=title, offer_type=type_, price=Decimal(price), currency="EUR",
            original_price=before and Decimal(before), inventory_total=stock, placement=placement,
            description=description, expires_at=event.starts_at, **more,
        )  # fmt: skip
        return offer

    def _sell(self, offer: Offer, days: tuple[int, ...]) -> None:
        for ago, sold in enumerate(days):
            for number in range(sold):
                at = self.now - timedelta(days=ago, minutes=3 + 11 * number)
                self.buy(offer, self._buyer_of(offer, ago + number), at=at)

    def _buyer_of(self, offer: Offer, number: int) -> User:
        if offer.offer_type != Offer.Type.TICKET_UPGRADE:
            return self.buyers[number % len(self.buyers)]
        guest = next(self.guests)  # one ticket takes one upgrade
        RegistrationFactory(
            event=offer.event, user=guest, ticket_tier=offer.event.ticket_tiers.get(slug="standard")
        )
        return guest

    def buy(self, offer: Offer, user: User, *, at: datetime, quantity: int = 1) -> Purchase:
        """Sold and, as far as that needs nobody's hands, delivered at once."""
        sold: Purchase = PurchaseFactory(
            offer=offer, user=user, quantity=quantity, created_at=at, status=Status.PAID
        )
        queue.deliver_one(sold.pk, now=at)
        return sold

    def hold(self, offer: Offer, user: User, *, at: datetime) -> Purchase:
        held: Purchase = PurchaseFactory(
            offer=offer, user=user, created_at=at, status=Status.AWAITING_PAYMENT
        )
        return held

    def _count_visits(self) -> None:
        request = RequestFactory().get("/")
        shown = [(offer.pk, offer.placement) for offer in self.offers]
        for ago in range(len(SOLD[0])):
            for _ in range(VISITS_A_DAY + 3 * (ago % 4)):
                impressions.note(request, shown, now=self.now - timedelta(days=ago))
        impressions.flush()
