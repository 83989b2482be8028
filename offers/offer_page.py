"""The page on which an organizer sets up an offer: its groups, its preview, what it says next."""

import uuid
from decimal import Decimal
from typing import Any, ClassVar, cast

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import models, transaction
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, QueryDict
from django.template.defaultfilters import date
from django.template.loader import render_to_string
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import escape, format_html
from django.views.decorators.http import require_POST
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminURLInputWidget

from offers import inventory, money, stripe_dashboard
from offers.errors import OfferNotStarted, SoldOut
from offers.models import Event, Offer
from offers.offer_card import Card
from offers.offer_form import OfferForm, price_hint
from offers.scoped_admin import EDITORS, ScopedAdmin, visible_to

# What the card shows, and what decides whether it is shown.
ON_THE_CARD = (
    "title", "description", "offer_type", "image_url", "price", "original_price", "currency",
    "inventory_total", "shipping_countries", "allows_collection", "is_active", "starts_at",
    "expires_at",
)  # fmt: skip

DELIVERY = (
    '<p data-for-type="TICKET_UPGRADE"><b>Ticket upgrade:</b> buyers are moved to the tier you '
    "choose here, as soon as they have paid.</p>"
    '<p data-for-type="MERCHANDISE"><b>Merchandise:</b> sent to the countries you name, where '
    "Stripe asks for the address, or collected at the event, or both.</p>"
    '<p data-for-type="EXCLUSIVE_CONTENT"><b>Exclusive content:</b> once it is saved, this page '
    "has further down what buyers get: a file or an address, and access codes.</p>"
    '<p data-for-type="SERVICE"><b>Service:</b> once it is saved, this page has further down its '
    "place, its duration and the times to choose from.</p>"
)

# It brings its own looks, since it stands on other people's pages and in e-mails.
BUTTON = (
    '<a href="{}" style="display:inline-block;padding:12px 24px;border-radius:8px;'
    "background-color:#3730a3;color:#ffffff;font:600 16px sans-serif;"
    'text-decoration:none">{}</a>'
)


class OfferPage(ScopedAdmin):
    """Mixed into the admin of offers."""

    form = OfferForm
    change_form_template = "admin/offers/offer/change_form.html"
    autocomplete_fields = ("event", "target_sessions", "target_ticket_tiers", "ticket_tier")
    readonly_fields = (
        "sales", "sale_state", "link", "button", "stripe_product", "stripe_price", "created_at",
        "updated_at",
    )  # fmt: skip
    formfield_overrides: ClassVar = {
        models.URLField: {"assume_scheme": "https", "widget": UnfoldAdminURLInputWidget},
        models.TextField: {"widget": UnfoldAdminTextareaWidget(attrs={"rows": 4})},
    }

    class Media:
        js = ("offers/offer_form.js", "offers/within_event.js")

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        stock, shown = ["inventory_total"], ["placement", "is_active"]
        if obj is not None:
            # Other names than the list's columns have: they are of the same class.
            stock, shown = [*stock, "sales"], [*shown, "sale_state", "link", "button"]
        groups: list[Any] = [
            (
                "What is sold",
                {"fields": ("event", "offer_type", "title", "description", "image_url")},
            ),
            ("Price", {"fields": ("price", "currency", "original_price")}),
            ("Stock and limits", {"fields": (*stock, "max_per_user")}),
            ("When and where it is shown", {"fields": (*shown, "starts_at", "expires_at")}),
            ("For whom", {"fields": ("target_sessions", "target_ticket_tiers")}),
            (
                "Delivery",
                {
                    "fields": ("ticket_tier", "shipping_countries", "allows_collection"),
                    "description": DELIVERY,
                },
            ),
        ]
        if obj is not None:
            facts = ("stripe_product", "stripe_price", "created_at", "updated_at", "shown_at")
            groups.append(("Stripe and dates", {"fields": facts}))
        return groups

    # -- What is only shown ---------------------------------------------------------------------

    @admin.display(description="Of these")
    def sales(self, offer: Offer) -> str:
        left = offer.inventory_available
        rest = "no limit" if left is None else f"{left} left"
        return f"{offer.inventory_sold} sold, {offer.inventory_reserved} on hold, {rest}"

    @admin.display(description="Now")
    def sale_state(self, offer: Offer) -> str:
        return standing(offer)

    @admin.display(description="Link to it")
    def link(self, offer: Offer) -> str:
        return format_html(
            '<code class="to-copy">{}</code> <span>For any e-mail or website: it '
            "leads to the offer, whoever opens it, and says so when it is over.</span>",
            self._address(offer),
        )

    @admin.display(description="Button for a website")
    def button(self, offer: Offer) -> str:
        html = format_html(BUTTON, self._address(offer), offer.title)
        return format_html('<code class="to-copy">{}</code>', escape(html))

    @staticmethod
    def _address(offer: Any) -> str:
        return f"{offer.site_url}{page_of(offer)}"

    def get_object(self, request: HttpRequest, object_id: str, from_field: Any = None) -> Any:
        """Note this site's address with the offer: what is only shown is told nothing else."""
        offer: Any = super().get_object(request, object_id, from_field)
        if offer is not None:
            own = request.build_absolute_uri("/").rstrip("/")
            offer.site_url = settings.FRONTEND_URL or own
        return offer

    @admin.display(description="Product at Stripe")
    def stripe_product(self, offer: Offer) -> str:
        return stripe_dashboard.link(offer.stripe_product_id)

    @admin.display(description="Price at Stripe")
    def stripe_price(self, offer: Offer) -> str:
        return stripe_dashboard.link(offer.stripe_price_id)

    # -- An empty form --------------------------------------------------------------------------

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Start with the event that the list was about, or the only one, and its usual currency."""
        given: dict[str, Any] = super().get_changeform_initial_data(request)
        event = self._likely_event(request, given.pop("event", None) or request.GET.get("event"))
        offers = visible_to(request, Offer, self.admin_site, roles=EDITORS)
        if event is not None:
            given["event"] = event.pk
            offers = offers.filter(event__organization=event.organization_id)
        latest = offers.order_by("-created_at").values_list("currency", flat=True).first()
        return ({"currency": latest} if latest else {}) | given

    def _likely_event(self, request: HttpRequest, asked: Any) -> Event | None:
        listed = QueryDict(request.GET.get("_changelist_filters", "")).get("event__id__exact")
        events = visible_to(request, Event, self.admin_site, roles=EDITORS)
        if asked or listed:
            try:
                return cast("Event | None", events.filter(pk=asked or listed).first())
            except ValidationError:
                return None
        own = list(events[:2])
        return own[0] if len(own) == 1 else None

    # -- The preview ----------------------------------------------------------------------------

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(require_POST(self.preview_view))
        name = "offers_offer_preview"
        own = [
            path("preview/", view, name=name),
            path("<uuid:offer_id>/preview/", view, name=name),
        ]
        return [*own, *super().get_urls()]

    def preview_view(self, request: HttpRequest, offer_id: uuid.UUID | None = None) -> HttpResponse:
        """The card as it would be with what is typed so far; nothing is stored or locked."""
        stored = None
        if offer_id is not None:
            stored = self.get_object(request, str(offer_id))
            if stored is None:
                raise Http404
        allowed = (
            self.has_change_permission(request, stored)
            if stored
            else self.has_add_permission(request)
        )
        if not allowed:
            raise PermissionDenied
        form = self.get_form(request, stored, change=stored is not None)(request.POST)
        offer = sketch(form, stored)
        return JsonResponse(
            {
                "page": rendered(request, offer),
                "said": summary(offer),
                "price_hint": price_hint(str(form["currency"].data or "").strip().upper()),
            }
        )

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Add the preview, and where the errors are."""
        obj: Offer | None = kwargs.get("obj")
        form = context["adminform"].form
        if form.is_bound:
            offer = sketch(form, obj)
        else:
            offer = obj or Offer(
                title="Title", currency=str(form.initial.get("currency", "USD"))[:3]
            )
        context["preview"] = {
            "page": rendered(request, offer),
            "said": summary(offer),
            "url": reverse("admin:offers_offer_preview", args=[obj.pk] if obj else []),
            "fields": " ".join(ON_THE_CARD),
        }
        context["wrong"] = wrong_fields(form) if form.is_bound else []
        return super().render_change_form(request, context, *args, **kwargs)

    # -- Saving ---------------------------------------------------------------------------------

    def save_model(self, request: HttpRequest, obj: Offer, form: Any, change: Any) -> None:
        """Save; an existing offer's stock is changed by ``offers.inventory``, under the lock."""
        with transaction.atomic():
            super().save_model(request, obj, form, change)
            if change and "inventory_total" in form.changed_data:
                inventory.set_total(offer_id=obj.pk, total=obj.inventory_total)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: Any) -> None:
        """Save what belongs to the offer, and say whether attendees see it now, and where."""
        super().save_related(request, form, formsets, change)
        offer = form.instance
        told = format_html(
            '{} <a href="{}">Open the page that they see</a>.', standing(offer), page_of(offer)
        )
        is_on_sale = offer.refusal(timezone.now(), quantity=1) is None
        messages.add_message(request, messages.SUCCESS if is_on_sale else messages.INFO, told)


def page_of(offer: Offer) -> str:
    """The offer's own page, the same whatever its placement."""
    return reverse("offer-page", args=[offer.event.slug, offer.pk])


def sketch(form: forms.ModelForm, stored: Offer | None) -> Offer:
    """An offer, never to be saved, of what makes sense in a form that was sent.

    Field by field, without the form's own ``clean``, which locks the offer. What makes no sense is
    as it is stored, or missing.
    """
    offer = Offer(price=None)  # type: ignore[misc] # never saved, and a card can do without
    if stored is not None:
        for field in Offer._meta.concrete_fields:
            setattr(offer, field.attname, getattr(stored, field.attname))
    wrong = set()
    for name in ON_THE_CARD:
        try:
            setattr(offer, name, form.fields[name].clean(form[name].data))
        except (KeyError, ValidationError):
            wrong.add(name)
    # An amount that nobody typed is worse than none.
    for name in ("price", "original_price"):
        if wrong & {name, "currency"}:
            setattr(offer, name, None)
        amount = getattr(offer, name)
        if amount is not None and not money.is_chargeable(amount, offer.currency):
            setattr(offer, name, None)  # the card would round it
    return offer


def rendered(request: HttpRequest, offer: Offer) -> str:
    """The page around the card, for a frame in which nothing can be sent and no script runs."""
    now = timezone.now()
    refusal = offer.refusal(now, quantity=1)
    card = Card(
        offer=offer,
        now=now,
        # Whatever else keeps it from being sold is about to be mended, and said below the card.
        refusal=refusal if isinstance(refusal, OfferNotStarted | SoldOut) else None,
        chooses_delivery=offer.offer_type == Offer.Type.MERCHANDISE
        and bool(offer.shipping_countries)
        and offer.allows_collection,
        address=page_of(offer) if offer.event_id else "",
    )
    context = {"card": card}
    return render_to_string("admin/offers/offer/preview.html", context, request=request)


def summary(offer: Offer) -> str:
    """The card in a sentence, for who hears the page."""
    asked: Decimal | None = offer.price
    if asked is None:
        price = "no price yet"
    elif asked == 0:
        price = "free"
    else:
        price = f"{money.format_amount(offer.price, offer.currency)} {offer.currency}"
    return f"{offer.title or 'No title yet'}, {price}. {standing(offer)}"


def standing(offer: Offer) -> str:
    """Whether attendees see it, and otherwise why not and what would change that."""
    refusal = offer.refusal(timezone.now(), quantity=1)
    if refusal is None:
        return f"Attendees can buy it {'once it is saved' if offer._state.adding else 'now'}."
    if isinstance(refusal, OfferNotStarted):
        return f"Attendees can buy it from {date(offer.starts_at, 'j F Y, H:i')} UTC on."
    if isinstance(refusal, SoldOut):
        return "Attendees see that it is sold out."
    return f"Attendees don't see it: {refusal}"


def wrong_fields(form: forms.ModelForm) -> list[dict[str, Any]]:
    """Which fields have errors, in the order of the page, for the links at its top."""
    return [
        {
            "label": form[name].label,
            # Day and time are two inputs: the label is of the group, the link to the first.
            "id": form[name].id_for_label or f"{form[name].auto_id}_0",
            "errors": form.errors[name],
        }
        for name in form.fields
        if name in form.errors
    ]
