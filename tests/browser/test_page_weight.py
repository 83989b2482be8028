"""What a phone has to load before it can buy, in bytes; `make bench-pages` measures seconds."""

from collections.abc import Callable

import pytest

from purchases.models import Purchase
from purchases.states import Status
from tests.browser.buying import Stall
from tests.browser.visitor import PHONE, Visitor
from tests.factories import OfferFactory, PurchaseFactory

pytestmark = pytest.mark.django_db(transaction=True)

CARDS = 20
HEAVIEST = 100_000  # bytes, without pictures
MOST_REQUESTS = 5  # the page, its style sheet, its two scripts, its icon
# Headers included; the server of the tests compresses nothing.
LOADED = """() => [
  ...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')
].filter(each => each.initiatorType !== 'img')
  .map(each => [new URL(each.name).pathname, each.transferSize])"""


@pytest.mark.parametrize("is_logged_in", [False, True], ids=["anybody", "attendee"])
def test_event_with_twenty_offers_is_light(
    visit: Callable[..., Visitor], is_logged_in: bool
) -> None:
    stall = Stall()
    for number in range(CARDS - 2):
        OfferFactory(
            event=stall.event,
            title=f"Lantern workshop by the old quay, part {number + 1}",
            description="With all material, and tea in the old boat house afterwards. " * 4,
            original_price=60,
            allows_collection=True,
            shipping_countries=["DE", "DK"],
        )
    hold = PurchaseFactory(offer=stall.mug, user=stall.attendee, status=Status.AWAITING_PAYMENT)
    Purchase.objects.filter(pk=hold.pk).update(checkout_url="http://127.0.0.1/pay")
    visitor = visit(stall.attendee if is_logged_in else None, size=PHONE)
    visitor.open(stall.page)
    assert visitor.page.locator("article[data-offer]").count() == CARDS
    loaded = dict(visitor.page.evaluate(LOADED))
    assert len(loaded) <= MOST_REQUESTS, loaded
    assert all(loaded.values()), loaded
    assert sum(loaded.values()) < HEAVIEST, loaded
