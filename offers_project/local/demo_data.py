"""The demo data of the local run: fixed names, so that scripts and readers can rely on them."""

import io
import zipfile
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal

from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.db import transaction

from fulfillment.bookings.models import ServiceDetails, TimeSlot
from fulfillment.digital.models import DigitalContent
from offers.models import (
    Event,
    EventSession,
    Membership,
    Offer,
    Organization,
    Registration,
    TicketTier,
)
from purchases.models import Purchase
from purchases.states import Status

ATTENDEES = 60
BATCH = 5_000

OFFERS = (
    # type, title, description, price, original price, stock
    (
        Offer.Type.TICKET_UPGRADE, "VIP upgrade",
        "Front rows, the speakers' lounge, and no queue at the door.",
        "50.00", "80.00", 100,
    ),
    (
        Offer.Type.MERCHANDISE, "Conference hoodie",
        "Organic cotton, in the colours of this year.",
        "39.00", None, 200,
    ),
    (
        Offer.Type.EXCLUSIVE_CONTENT, "All recordings",
        "Every talk and workshop, to watch for a year.",
        "19.00", "29.00", 1000,
    ),
    (
        Offer.Type.SERVICE, "Career coaching, 30 minutes",
        "One to one, with somebody who hires.",
        "25.00", None, 20,
    ),
)  # fmt: skip
# Collected at the event it is, too.
SHIPS_TO = "AT BE CA CH DE DK ES FI FR GB IE IT LU NL NO PL PT SE US".split()

TRANSCRIPT = [
    f"{minute:02}:00  {said}"
    for minute in range(0, 60, 5)
    for said in ("Thank you all for being here.", "Are there any questions?")
]


@transaction.atomic
def create_demo(*, now: datetime) -> bool:
    """Make the demo data and return whether it was made.

    Only in a database without users: everybody knows the password of the demo's `admin`.
    """
    if User.objects.exists():
        return False
    User.objects.create_superuser("admin", "admin@example.com", "admin")
    names = ["organizer", "rival", *(f"attendee{n}" for n in range(1, ATTENDEES + 1))]
    users = {
        user.username: user
        for user in User.objects.bulk_create(
            User(
                username=name,
                email=f"{name}@example.com",
                password=make_password(name),
                is_staff=name in ("organizer", "rival"),
            )
            for name in names
        )
    }
    demo = _organization("demo", "Demo Events", owner=users["organizer"])
    rival = _organization("rival", "Rival Events", owner=users["rival"])

    start = (now + timedelta(days=30)).replace(hour=9, minute=0, second=0, microsecond=0)
    conf, standard, vip = _event(demo, "demo-conf", "Demo Conf", start=start, is_public=True)
    private, private_standard, _ = _event(
        demo, "private-day", "Private Day", start=start + timedelta(days=2), is_public=False
    )
    _event(rival, "rival-fest", "Rival Fest", start=start, is_public=True)

    Registration.objects.bulk_create(
        Registration(event=conf, user=user, ticket_tier=vip if name == "attendee2" else standard)
        for name, user in users.items()
        if name.startswith("attendee")
    )
    Registration.objects.create(
        event=private, user=users["attendee1"], ticket_tier=private_standard
    )
    for offer_type, title, description, price, original, stock in OFFERS:
        offer = Offer.objects.create(
            event=conf,
            offer_type=offer_type,
            title=title,
            description=description,
            price=Decimal(price),
            original_price=original and Decimal(original),
            inventory_total=stock,
            ticket_tier=vip if offer_type == Offer.Type.TICKET_UPGRADE else None,
            shipping_countries=SHIPS_TO if offer_type == Offer.Type.MERCHANDISE else [],
        )
        if offer_type == Offer.Type.EXCLUSIVE_CONTENT:
            _content(offer, now=now)
        if offer_type == Offer.Type.SERVICE:
            _coaching(offer, start=start)
    return True


def _content(offer: Offer, *, now: datetime) -> None:
    """What buyers of the recordings download: always the same bytes."""
    DigitalContent.objects.create(
        offer=offer,
        file=ContentFile(recordings(), "recordings"),
        file_name="demo-conf-recordings.zip",
        uploaded_at=now,
        instructions="Unpack it; in it is a transcript of each talk. You may share it with your "
        "colleagues, but not with the world.",
    )


def recordings() -> bytes:
    """A small archive with a text for each session of the conference."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name in ("keynote", "workshop"):
            lines = [f"Demo Conf, {name}", "", *TRANSCRIPT]
            # A ZipInfo without a date is of 1980, and nothing is compressed: the same everywhere.
            archive.writestr(zipfile.ZipInfo(f"{name}.txt"), "\n".join(lines) + "\n")
    return written.getvalue()


def _coaching(offer: Offer, *, start: datetime) -> None:
    """Times on the event's day and those around it: 36 seats, more than there are to sell."""
    ServiceDetails.objects.create(
        offer=offer,
        location="Room 3, first floor",
        duration_minutes=30,
        instructions="Bring your CV, on paper or on a laptop.",
    )
    TimeSlot.objects.bulk_create(
        TimeSlot(
            offer=offer,
            starts_at=begins,
            ends_at=begins + timedelta(minutes=30),
            capacity=2,
        )
        for day in (-1, 0, 1)
        for half_hour in (2, 3, 4, 8, 9, 10)
        for begins in (start + timedelta(days=day, minutes=30 * half_hour),)
    )


def _organization(slug: str, name: str, *, owner: User) -> Organization:
    organization = Organization.objects.create(slug=slug, name=name)
    Membership.objects.create(organization=organization, user=owner, role=Membership.Role.OWNER)
    return organization


def _event(
    organization: Organization, slug: str, title: str, *, start: datetime, is_public: bool
) -> tuple[Event, TicketTier, TicketTier]:
    event = Event.objects.create(
        organization=organization,
        slug=slug,
        title=title,
        is_public=is_public,
        starts_at=start,
        ends_at=start + timedelta(hours=9),
    )
    for number, name in enumerate(("keynote", "workshop")):
        begins = start + timedelta(hours=3 * number)
        EventSession.objects.create(
            event=event,
            slug=name,
            title=name.capitalize(),
            starts_at=begins,
            ends_at=begins + timedelta(hours=2),
        )
    standard, vip = (
        TicketTier.objects.create(event=event, slug=slug, title=title)
        for slug, title in (("standard", "Standard"), ("vip", "VIP"))
    )
    return event, standard, vip


def create_many(*, offers: int, purchases: int, now: datetime) -> Iterator[str]:
    """Fill `demo-conf` for benchmarks and demonstrations, yielding a line of progress a batch.

    Written in bulk, with counters that equal the purchases. Marked as known to Stripe, which nobody
    wants to tell of a million offers.
    """
    event = Event.objects.get(slug="demo-conf")
    for done in range(0, offers, BATCH):
        Offer.objects.bulk_create(
            Offer(
                event=event,
                title=f"Bulk offer {number:,}",
                offer_type=Offer.Type.MERCHANDISE,
                price=Decimal("10.00"),
                inventory_total=1000,
                catalog_synced_version=1,
            )
            for number in range(done + 1, min(done + BATCH, offers) + 1)
        )
        yield f"offers: {min(done + BATCH, offers):,}"
    if not purchases:
        return
    buyers = list(User.objects.filter(username__startswith="attendee"))
    for done in range(0, purchases, BATCH):
        count = min(BATCH, purchases - done)
        with transaction.atomic():
            offer = Offer.objects.create(
                event=event,
                title=f"Bulk sale {done // BATCH + 1:,}",
                offer_type=Offer.Type.MERCHANDISE,
                price=Decimal("10.00"),
                inventory_total=BATCH,
                inventory_sold=count,
                is_active=False,
                catalog_synced_version=1,
            )
            Purchase.objects.bulk_create(
                Purchase(
                    user=buyers[number % len(buyers)],
                    offer=offer,
                    event=event,
                    offer_title=offer.title,
                    quantity=1,
                    unit_price=offer.price,
                    total_price=offer.price,
                    currency=offer.currency,
                    status=Status.PAID,
                    reserved_until=now,
                    created_at=now - timedelta(seconds=number),
                    paid_at=now,
                )
                for number in range(count)
            )
        yield f"purchases: {done + count:,}"
