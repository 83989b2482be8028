"""Who hands merchandise over on the check-in page: a row beside the table of test_permissions."""

import pytest

from purchases.states import Status
from tests.conftest import deliver_now
from tests.factories import OfferFactory, PurchaseFactory
from tests.test_permissions import CHECKED, WHO, browser_of, undone
from tests.two_organizations import World

pytestmark = pytest.mark.django_db


def test_merchandise_is_handed_over_by_owners_and_managers() -> None:
    """The table's code is of a ticket, which has no button."""
    world = World()
    offer = OfferFactory(event=world.home.event)
    purchase = PurchaseFactory(offer=offer, status=Status.PAID, delivery_method="collection")
    order = deliver_now(purchase.pk).shipping_order
    url = f"/check-in/{order.pickup_code}"
    looks, hands_over = {}, {}
    for who in WHO:
        client = browser_of(world.people[who])
        with undone():
            page = client.get(url)
            looks[who] = page.status_code
            has_button = "<button>Hand over</button>" in page.content.decode()
            hands_over[who] = client.post(url).status_code
            order.refresh_from_db()
            done = order.delivered_at is not None
        assert done == has_button == (who in ("manager", "owner", "superuser")), who
        assert ("owner or a manager" in page.content.decode()) == (who == "support")
    assert looks == CHECKED
    assert hands_over == CHECKED | {"support": 403, "manager": 302, "owner": 302, "superuser": 302}
