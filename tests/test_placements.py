"""What is offered after a purchase, and in its confirmation."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.template import Context, Template
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from django.utils.html import escape

from offers import impressions
from offers.models import Offer
from purchases import mail
from purchases.models import Email, Purchase
from purchases.states import Status
from tests.factories import (
    MembershipFactory,
    OfferFactory,
    PurchaseFactory,
    RegistrationFactory,
    TicketTierFactory,
    UserFactory,
)

pytestmark = pytest.mark.django_db(transaction=True)

AFTER = Offer.Placement.POST_PURCHASE


def below(purchase: Purchase) -> str:
    """What ``{% goes_with purchase %}`` is on a page of the purchase."""
    request = RequestFactory().get("/")
    request.user = purchase.user
    template = Template("{% load placements %}{% goes_with purchase %}")
    return template.render(
        Context({"request": request, "purchase": purchase, "user": request.user})
    )


def titles(purchase: Purchase) -> list[str]:
    return re.findall(r"<h3><a[^>]*>([^<]+)", below(purchase))


def letter(purchase: Purchase) -> tuple[str, str]:
    Email.objects.create(
        purchase=purchase, occasion="confirmed", due_at=timezone.now(), created_at=timezone.now()
    )
    message = mail.message(Email.objects.get(), purchase)
    return str(message.body), str(message.alternatives[0][0])


@pytest.fixture
def purchase() -> Purchase:
    bought: Purchase = PurchaseFactory(status=Status.PAID)
    return bought


def test_what_goes_with_a_purchase_is_what_its_buyer_can_buy_and_has_not(
    purchase: Purchase,
) -> None:
    event, now = purchase.event, timezone.now()
    vip = TicketTierFactory(event=event, slug="vip")
    RegistrationFactory(event=event, user=purchase.user, ticket_tier=vip)

    def offer(title: str, **more: Any) -> Offer:
        made: Offer = OfferFactory(**{"event": event, "placement": AFTER, "title": title} | more)
        return made

    offer("fits")
    offer("for vip").target_ticket_tiers.add(vip)
    offer("for others").target_ticket_tiers.add(TicketTierFactory(event=event))
    offer("elsewhere", placement="IN_EVENT")
    offer("another event", event=OfferFactory().event)
    offer("gone", inventory_total=0)
    offer("over", expires_at=now - timedelta(hours=1))
    offer("own tier", offer_type="TICKET_UPGRADE", ticket_tier=vip)
    PurchaseFactory(offer=offer("bought"), user=purchase.user, status=Status.PAID)
    PurchaseFactory(offer=offer("held"), user=purchase.user)
    PurchaseFactory(offer=offer("given back"), user=purchase.user, status=Status.RELEASED)
    assert titles(purchase) == ["fits", "for vip", "given back"]


def test_at_most_three_are_shown_and_each_is_counted(purchase: Purchase) -> None:
    for n in range(5):
        OfferFactory(event=purchase.event, placement=AFTER, title=f"{n}")
    assert titles(purchase) == ["0", "1", "2"]
    assert impressions.flush() == 3
    assert set(impressions.Impression.objects.values_list("placement", flat=True)) == {AFTER}


@pytest.mark.parametrize("status", [Status.AWAITING_PAYMENT, Status.RELEASED, Status.REFUNDED])
def test_nothing_is_offered_beside_what_is_not_paid(status: str) -> None:
    unpaid = PurchaseFactory(status=status)
    OfferFactory(event=unpaid.event, placement=AFTER)
    assert below(unpaid).strip() == ""


def test_its_queries_do_not_grow_with_the_offers(purchase: Purchase) -> None:
    counts = []
    for _ in range(2):
        OfferFactory(event=purchase.event, placement=AFTER)
        below(purchase)
        with CaptureQueriesContext(connection) as queries:
            below(purchase)
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 7


def test_buy_leads_from_there_straight_to_stripe(sandbox: Any, purchase: Purchase) -> None:
    offer = OfferFactory(event=purchase.event, placement=AFTER)
    page = below(purchase)
    action = re.search(r'<form method="post" action="([^"]+)"', page)[1]
    assert action == reverse("offer-page", args=[purchase.event.slug, offer.pk])
    buyer = Client()
    buyer.force_login(purchase.user)
    sent = buyer.post(action, {"offer": str(offer.pk), "quantity": 1})
    assert sent.url == Purchase.objects.get(offer=offer).checkout_url


def test_double_click_there_is_one_purchase(purchase: Purchase) -> None:
    offer = OfferFactory(event=purchase.event, placement=AFTER, price=0)
    page = below(purchase)
    form = dict(re.findall(r'<input type="hidden" name="(key|offer)" value="([^"]+)"', page))
    action = re.search(r'<form method="post" action="([^"]+)"', page)[1]
    buyer = Client()
    buyer.force_login(purchase.user)
    pages = {buyer.post(action, form | {"quantity": 1}).url for _ in range(2)}
    assert pages == {f"/purchases/{Purchase.objects.get(offer=offer).pk}"}


def test_nothing_of_a_private_event_is_shown_to_who_has_no_place_there(purchase: Purchase) -> None:
    OfferFactory(event=purchase.event, placement=AFTER, title="For the few")
    assert "For the few" in below(purchase)
    purchase.event.is_public = False
    purchase.event.save()
    assert "For the few" not in below(purchase)


# -- In the confirmation --------------------------------------------------------------------------


def test_confirmation_has_up_to_three_offers_with_links(
    settings: Any, purchase: Purchase, client: Client
) -> None:
    settings.FRONTEND_URL = "https://shop.example.com"
    offers = [
        OfferFactory(
            event=purchase.event, placement="EMAIL", title=f"<b>{n}</b> & more", price=n,
            original_price=n and 9,
        )
        for n in range(4)
    ]  # fmt: skip
    text, html = letter(purchase)
    for offer in offers[:3]:
        path = reverse("offer-page", args=[purchase.event.slug, offer.pk])
        assert f"\nhttps://shop.example.com{path}\n" in text
        assert f'href="https://shop.example.com{path}"' in html
        assert escape(offer.title) in html
        assert offer.title in text
    assert str(offers[3].pk) not in text + html
    assert "Free" in text
    assert "$2.00 <s>$9.00</s>" in html
    # A letter that was sent is not one that was read: the visit that it leads to is counted.
    assert impressions.flush() == 0
    client.get(reverse("offer-page", args=[purchase.event.slug, offers[0].pk]))
    assert impressions.flush() == 1
    assert impressions.Impression.objects.get().placement == "EMAIL"


def test_confirmation_without_such_offers_or_without_an_address_has_none(
    settings: Any, purchase: Purchase
) -> None:
    OfferFactory(event=purchase.event, placement="EMAIL")
    settings.FRONTEND_URL = ""
    assert "Goes well with it" not in "".join(letter(purchase))


# -- Where organizers find the link ---------------------------------------------------------------


def test_offers_page_in_admin_has_the_link_and_a_button_to_copy(settings: Any) -> None:
    offer = OfferFactory(title='5" <disc>', placement="EMAIL")
    member: User = MembershipFactory(
        organization=offer.event.organization, user=UserFactory(is_staff=True)
    ).user
    organizer = Client()
    organizer.force_login(member)
    url = reverse("admin:offers_offer_change", args=[offer.pk])
    path = reverse("offer-page", args=[offer.event.slug, offer.pk])
    for site, shown in (("", "http://testserver"), ("https://shop.example.com", None)):
        settings.FRONTEND_URL = site
        page = organizer.get(url).content.decode()
        assert f'<code class="to-copy">{shown or site}{path}</code>' in page
        assert escape(f'<a href="{shown or site}{path}" style="') in page
        assert escape(f"{escape(offer.title)}</a>") in page
