"""E-mails that leave after a refund hand out nothing, and say so."""

import pytest
from django.template.loader import render_to_string
from django.utils import timezone

from fulfillment.codes import text
from fulfillment.shipping import orders
from purchases.models import Purchase
from purchases.states import Status
from tests.factories import EventFactory, RegistrationFactory, TicketTierFactory
from tests.test_shipping import BY, collected, paid, placed, ship
from tests.test_shipping import refund as refund_merchandise
from tests.ticket_upgrades import refund, upgrade

pytestmark = pytest.mark.django_db
KINDS = pytest.mark.parametrize("kind", ["txt", "html"])


def letter(purchase: Purchase, occasion: str, kind: str) -> str:
    purchase = Purchase.objects.get(pk=purchase.pk)
    return render_to_string(f"emails/{occasion}.{kind}", {"purchase": purchase, "site": "http://t"})


@KINDS
def test_letter_about_a_refunded_collection_has_no_code(kind: str) -> None:
    purchase = collected()
    code = text.spaced(str(placed(purchase).pickup_code))
    assert code in letter(purchase, "order_placed", kind)
    Purchase.objects.update(status=Status.REFUNDING)
    assert code not in letter(purchase, "order_placed", kind)
    refund_merchandise(purchase)
    late = letter(purchase, "order_placed", kind)
    assert "taken back" in late
    assert code not in late
    assert "pick-up code" not in late
    assert f"http://t/purchases/{purchase.pk}" in late


@KINDS
def test_letter_about_what_was_handed_over_meanwhile_has_no_code(kind: str) -> None:
    purchase = collected()
    order = placed(purchase)
    orders.hand_over(order.pk, now=timezone.now(), **BY)
    late = letter(purchase, "order_placed", kind)
    assert "or given it to you" in late
    assert text.spaced(str(order.pickup_code)) not in late
    assert "taken back" not in late


@KINDS
def test_letters_about_a_refunded_parcel_promise_nothing(kind: str) -> None:
    purchase = paid()
    order = placed(purchase)
    assert "Unter den Linden" in letter(purchase, "order_placed", kind)
    ship(order, "00340")
    assert "00340" in letter(purchase, "shipped", kind)
    refund_merchandise(purchase)
    for occasion in ("order_placed", "shipped"):
        late = letter(purchase, occasion, kind)
        assert "taken back" in late
        assert "00340" not in late
        assert "Unter den Linden" not in late


@KINDS
def test_letter_about_a_refunded_upgrade_has_no_code(kind: str) -> None:
    event = EventFactory()
    standard, gold = (TicketTierFactory(event=event, title=title) for title in ("Basic", "Gold"))
    upgraded = upgrade(RegistrationFactory(event=event, ticket_tier=standard), gold)
    purchase = upgraded.fulfillment.purchase
    code = text.spaced(upgraded.code)
    assert code in letter(purchase, "ticket_upgraded", kind)
    refund(upgraded)
    late = letter(purchase, "ticket_upgraded", kind)
    assert "taken back" in late
    assert code not in late
    assert "at the entrance" not in late
