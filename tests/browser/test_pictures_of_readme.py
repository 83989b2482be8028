"""The pictures of README, in `.screenshots/readme/`: copied by hand to `docs/pictures/`.

python -m pytest tests/browser/test_pictures_of_readme.py
"""

from collections.abc import Callable
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from fulfillment import queue
from purchases import mail
from purchases.models import Purchase
from purchases.states import Status
from tests.browser.shop import Shop
from tests.browser.visitor import SHOTS, Visitor
from tests.conftest import Sandbox, buy
from tests.sandbox_process import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


def test_pictures_are_taken_of_a_shop_in_its_season(
    visit: Callable[..., Visitor], stripe: Sandbox, client_of: Any
) -> None:
    shop = Shop()
    recordings = shop.offers[4]
    bought = buy(client_of(shop.buyers[5]), recordings).json()
    stripe.act(bought["checkout_session_id"], "pay")
    purchase = Purchase.objects.get(pk=bought["id"])
    wait_for(lambda: Purchase.objects.get(pk=purchase.pk).status == Status.PAID)
    queue.deliver_one(purchase.pk, now=timezone.now())
    mail.send_due(now=timezone.now())

    visitor = visit(shop.manager, size=(1280, 1000))
    pages = {
        "dashboard": reverse("admin:index"),
        "offers": reverse("admin:offers_offer_changelist"),
        "offer": reverse("admin:offers_offer_change", args=[shop.offers[0].pk]),
        "purchase": reverse("admin:purchases_purchase_change", args=[purchase.pk]),
    }
    for name, address in pages.items():
        visitor.open(address)
        if name == "purchase":
            visitor.page.locator("#timeline-heading").evaluate("e => e.scrollIntoView()")
        visitor.page.screenshot(path=SHOTS / "readme" / f"{name}.png", animations="disabled")
