"""Addresses of Stripe's dashboard, for staff who want to see there what an id stands for.

Stripe promises none of them. A product, a price, a payment, a refund and a dispute have a page at
their own id; of a Checkout Session the dashboard's search is all there is. With any other
``STRIPE_API_BASE``, as the sandbox's, the ids are known to no dashboard: there are no addresses.
"""

from urllib.parse import quote, urlsplit

from django.conf import settings
from django.utils.html import format_html
from django.utils.safestring import SafeString

DASHBOARD = "https://dashboard.stripe.com"
API_HOST = "api.stripe.com"
# https://docs.stripe.com/keys#test-live-modes
TEST_KEYS = ("sk_test_", "rk_test_")
PAGES = {
    "prod_": "products/{}",
    "price_": "prices/{}",
    "pi_": "payments/{}",
    "re_": "refunds/{}",
    "pyr_": "refunds/{}",
    "du_": "disputes/{}",
    "dp_": "disputes/{}",
    "cs_": "search?query={}",
}


def address(stripe_id: str | None) -> str | None:
    """Where the dashboard shows it; ``None`` where there is no dashboard, or no page of its kind.

    By the key in use: a test's objects are shown in the dashboard's test mode alone.
    """
    if not stripe_id or urlsplit(settings.STRIPE_API_BASE).hostname != API_HOST:
        return None
    page = next((page for start, page in PAGES.items() if stripe_id.startswith(start)), None)
    if page is None:
        return None
    mode = "/test" if settings.STRIPE_SECRET_KEY.startswith(TEST_KEYS) else ""
    return f"{DASHBOARD}{mode}/{page.format(quote(stripe_id, safe=''))}"


def link(stripe_id: str | None) -> SafeString | str:
    """The id, with its address if it has one, for a page of the back-office."""
    url = address(stripe_id)
    if url is None:
        return stripe_id or "–"
    return format_html(
        '<a class="stripe-id" href="{}" target="_blank" rel="noopener noreferrer">{}'
        '<span class="sr-only"> at Stripe (a new window)</span></a>',
        url,
        stripe_id,
    )
