"""Two organizations with all their people, for the tests about who may do what.

Everything of the second one has "Rival" in its name, so that a page that shows any of it is found
by looking for that word.
"""

from typing import Any

from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import models
from django.utils import timezone

from fulfillment import queue
from fulfillment.bookings.models import ServiceBooking, TimeSlot
from fulfillment.digital.models import AccessCode
from fulfillment.models import Fulfillment
from fulfillment.shipping.models import ShippingOrder
from fulfillment.tickets.models import TicketUpgrade
from offers import staff_log
from offers.models import (
    Event,
    EventSession,
    Membership,
    Offer,
    Organization,
    Registration,
    TicketTier,
)
from purchases import mail
from purchases.bulk import jobs, kinds
from purchases.models import (
    BulkJob,
    Dispute,
    Email,
    Purchase,
    PurchaseTransition,
    Refund,
    StripeEvent,
    WebhookDelivery,
    WebhookEndpoint,
)
from purchases.states import Status
from purchases.subscribers import publish
from tests.factories import (
    DisputeFactory,
    EventFactory,
    EventSessionFactory,
    MembershipFactory,
    OfferFactory,
    OrganizationFactory,
    PurchaseFactory,
    RegistrationFactory,
    TicketTierFactory,
    TimeSlotFactory,
    UserFactory,
)
from tests.ticket_upgrades import upgrade

# Everybody there is. The first three are attendees: `buyer` is registered at the private event and
# bought there, `attendee` at the public one, `stranger` nowhere. `owner`, `manager` and `support`
# work for the first organization, `rival` owns the second. `ticked` is on the staff, of no
# organization, and has every one of Django's own permissions.
ATTENDEES = ("buyer", "attendee", "stranger")
MEMBERS = ("owner", "manager", "support")
RIVALS = ("rival", "rival_manager", "rival_support")
CALLERS = ("anonymous", *ATTENDEES, *MEMBERS, "rival", "ticked", "superuser")


class Side:
    """One organization and an object of every kind that belongs to it."""

    def __init__(self, name: str, people: dict[str, User], buyer: User, visitor: User) -> None:
        self.organization = OrganizationFactory(name=name, slug=name.lower())
        roles = [Membership.Role.OWNER, Membership.Role.MANAGER, Membership.Role.SUPPORT]
        self.memberships = [
            MembershipFactory(organization=self.organization, user=user, role=role)
            for user, role in zip(people.values(), roles, strict=True)
        ]
        self.event = EventFactory(
            organization=self.organization,
            title=f"{name} private",
            slug=f"{name.lower()}-private",
            is_public=False,
        )
        self.public_event = EventFactory(
            organization=self.organization, title=f"{name} public", slug=f"{name.lower()}-public"
        )
        self.session = EventSessionFactory(event=self.event, title=f"{name} session")
        self.tier = TicketTierFactory(event=self.event, title=f"{name} tier")
        self.registration = RegistrationFactory(event=self.event, user=buyer, ticket_tier=self.tier)
        RegistrationFactory(event=self.public_event, user=visitor)
        self.offer = OfferFactory(event=self.event, title=f"{name} offer", price=0)
        self.public_offer = OfferFactory(event=self.public_event, title=f"{name} public offer")
        self.purchase = PurchaseFactory(offer=self.offer, user=buyer, status=Status.PAID)
        queue.deliver_one(self.purchase.pk, now=timezone.now())
        self.fulfillment = Fulfillment.objects.get(purchase=self.purchase)
        self.upgrade = upgrade(self.registration, self.tier, price=0)
        sold = PurchaseFactory(offer=self.public_offer, user=visitor, status=Status.REFUNDING)
        mail.enqueue(sold, Email.Occasion.LATE_PAYMENT, now=timezone.now())
        self.endpoint = WebhookEndpoint.objects.create(
            organization=self.organization,
            url="http://127.0.0.1:9/hook",
            description=f"{name} endpoint",
        )
        publish(
            organization_id=self.organization.pk,
            type="purchase.paid",
            key="1",
            data={"offer_title": self.offer.title},
            now=timezone.now(),
        )
        service = OfferFactory(
            event=self.public_event, title=f"{name} service", offer_type=Offer.Type.SERVICE
        )
        self.slot = TimeSlotFactory(offer=service)
        client = UserFactory(username=f"{name} client")
        booked = PurchaseFactory(offer=service, user=client, status=Status.PAID)
        queue.deliver_one(booked.pk, now=timezone.now())
        self.booking = ServiceBooking.objects.get(fulfillment__purchase=booked)
        paid = Purchase.objects.filter(pk=self.purchase.pk)
        owner = self.memberships[0].user
        job = jobs.draft(kinds.of("refund"), paid, actor=owner, now=timezone.now())
        jobs.start(job, parameters={"reason": f"{name} reason"}, now=timezone.now())
        self.objects: dict[type[models.Model], Any] = {
            Organization: self.organization,
            Membership: self.memberships[0],
            Event: self.event,
            EventSession: self.session,
            TicketTier: self.tier,
            Registration: self.registration,
            Offer: self.offer,
            Purchase: self.purchase,
            PurchaseTransition: self.purchase.transitions.first(),
            BulkJob: job,
            Refund: sold.refunds.get(),
            Dispute: DisputeFactory(purchase=sold),
            Email: sold.emails.get(),
            Fulfillment: self.fulfillment,
            WebhookEndpoint: self.endpoint,
            WebhookDelivery: self.endpoint.deliveries.get(key="1"),
            AccessCode: AccessCode.objects.create(offer=self.offer, code=f"{name} code"),
            TicketUpgrade: self.upgrade,
            ShippingOrder: ShippingOrder.objects.get(fulfillment=self.fulfillment),
            TimeSlot: self.slot,
            ServiceBooking: self.booking,
            LogEntry: staff_log.record(self.memberships[0].user, self.offer, message="Did it.")[0],
        }


class World:
    def __init__(self) -> None:
        self.people: dict[str, User | None] = {"anonymous": None}
        for name in ATTENDEES:
            self.people[name] = UserFactory(username=name, email=f"{name}@example.com")
        for name in (*MEMBERS, *RIVALS, "ticked"):
            self.people[name] = UserFactory(
                username=name.capitalize(), email=f"{name}@example.com", is_staff=True
            )
        self["ticked"].user_permissions.set(Permission.objects.all())
        self.people["superuser"] = UserFactory(
            username="superuser", is_staff=True, is_superuser=True
        )
        self.home = Side("Home", {n: self[n] for n in MEMBERS}, self["buyer"], self["attendee"])
        self.away = Side(
            "Rival",
            {n: self[n] for n in RIVALS},
            UserFactory(username="Rival's guest"),
            UserFactory(username="Rival's visitor"),
        )
        StripeEvent.objects.create(
            id="evt_1",
            type="checkout.session.completed",
            created=timezone.now(),
            received_at=timezone.now(),
            due_at=timezone.now(),
            payload={"id": "evt_1"},
        )

    def __getitem__(self, name: str) -> User:
        user = self.people[name]
        assert user is not None
        return user
