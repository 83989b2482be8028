"""django-unfold's settings: title, colours, and the navigation."""

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse_lazy


def _list(title: str, model: str, icon: str) -> dict[str, Any]:
    """A link to a model's list, shown to whom the list is open to."""
    return {
        "title": title,
        "icon": icon,
        "link": reverse_lazy(f"admin:{model}_changelist"),
        "permission": _may_look_at(model),
    }


def _may_look_at(model: str) -> Callable[[HttpRequest], bool]:
    def permission(request: HttpRequest) -> bool:
        # Late: the registry needs the apps, which need the settings, which need this module.
        from django.apps import apps
        from django.contrib import admin

        pages = admin.site.get_model_admin(apps.get_model(model.replace("_", ".", 1)))
        return pages.has_module_permission(request)

    return permission


def _is_superuser(request: HttpRequest) -> bool:
    return bool(request.user.is_superuser)


def _works_for_somebody(request: HttpRequest) -> bool:
    from offers.scoped_admin import roles_held

    return _is_superuser(request) or bool(roles_held(request))


def _failed_events() -> int:
    from purchases.inbox_admin import failed

    return failed()


UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "Offers",
    "SITE_HEADER": "Offers",
    "SITE_SUBHEADER": "Back-office",
    "SITE_SYMBOL": "confirmation_number",
    "SITE_URL": "/",
    # A label in the header of every page; unfold has it for the name of the installation.
    "ENVIRONMENT": lambda request: ("Times are UTC", "info"),
    "SHOW_VIEW_ON_SITE": False,
    "BORDER_RADIUS": "6px",
    "STYLES": [lambda request: static("offers/admin.css")],
    "SCRIPTS": [lambda request: static("offers/accessible.js")],
    "SITE_FAVICONS": [
        {
            "rel": "icon",
            "type": "image/svg+xml",
            "href": lambda request: static("offers/favicon.svg"),
        }
    ],
    "COLORS": {
        "primary": {
            "50": "oklch(97% .014 254.604)",
            "100": "oklch(93.2% .032 255.585)",
            "200": "oklch(88.2% .059 254.128)",
            "300": "oklch(80.9% .105 251.813)",
            "400": "oklch(70.7% .165 254.624)",
            "500": "oklch(62.3% .214 259.815)",
            "600": "oklch(54.6% .245 262.881)",
            "700": "oklch(48.8% .243 264.376)",
            "800": "oklch(42.4% .199 265.638)",
            "900": "oklch(37.9% .146 265.522)",
            "950": "oklch(28.2% .091 267.935)",
        },
    },
    "SIDEBAR": {
        "show_search": True,
        "show_all_applications": False,
        "navigation": [
            {
                "items": [
                    {
                        "title": "Dashboard",
                        "icon": "monitoring",
                        "link": reverse_lazy("admin:index"),
                    },
                ],
            },
            {
                "title": "Selling",
                "separator": True,
                "items": [
                    _list("Offers", "offers_offer", "sell"),
                    _list("Purchases", "purchases_purchase", "shopping_cart"),
                    _list("Refunds", "purchases_refund", "currency_exchange"),
                    _list("Disputes", "purchases_dispute", "gavel"),
                    _list("Bulk actions", "purchases_bulkjob", "playlist_add_check"),
                ],
            },
            {
                "title": "Delivering",
                "separator": True,
                "items": [
                    _list("Fulfilments", "fulfillment_fulfillment", "inventory"),
                    _list("Parcels", "fulfillment_shippingorder", "local_shipping"),
                    _list("Bookings", "fulfillment_servicebooking", "event_available"),
                    _list("Time slots", "fulfillment_timeslot", "schedule"),
                    _list("Ticket upgrades", "fulfillment_ticketupgrade", "upgrade"),
                    _list("Access codes", "fulfillment_accesscode", "key"),
                    {
                        "title": "Check-in",
                        "icon": "qr_code_scanner",
                        "link": reverse_lazy("check-in"),
                        "permission": _works_for_somebody,
                    },
                ],
            },
            {
                "title": "Events",
                "separator": True,
                "collapsible": True,
                "items": [
                    _list("Events", "offers_event", "event"),
                    _list("Sessions", "offers_eventsession", "co_present"),
                    _list("Ticket tiers", "offers_tickettier", "local_activity"),
                    _list("Registrations", "offers_registration", "how_to_reg"),
                ],
            },
            {
                "title": "Organization",
                "separator": True,
                "collapsible": True,
                "items": [
                    _list("Organizations", "offers_organization", "domain"),
                    _list("Members", "offers_membership", "badge"),
                    _list("E-mails", "purchases_email", "mail"),
                    _list("Webhook endpoints", "purchases_webhookendpoint", "webhook"),
                    _list("Webhook deliveries", "purchases_webhookdelivery", "send"),
                    _list("Staff actions", "admin_logentry", "history"),
                ],
            },
            {
                "title": "Installation",
                "separator": True,
                "collapsible": True,
                "items": [
                    _list("Stripe events", "purchases_stripeevent", "inbox")
                    | {"waiting": _failed_events},
                    {
                        "title": "Kill switch",
                        "icon": "power_settings_new",
                        "link": reverse_lazy("admin:kill_switch"),
                        "permission": _is_superuser,
                    },
                    _list("Accounts", "auth_user", "person"),
                    _list("Groups", "auth_group", "group"),
                    _list("Switches", "waffle_switch", "toggle_on"),
                ],
            },
        ],
    },
}
