"""The form of an offer: what its fields take, and what they say where they don't."""

import difflib
import re
from decimal import Decimal
from functools import cache
from typing import Any, ClassVar

from babel import Locale
from django import forms
from django.core.validators import URLValidator
from django.utils.functional import lazy
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminTextInputWidget

from offers import countries, inventory, money, targeting
from offers.errors import PriceLocked, TotalBelowCommitted, TypeLocked
from offers.meanwhile import said
from offers.models import Offer

SIGNS = {"€": "EUR", "$": "USD", "£": "GBP", "¥": "JPY", "₹": "INR"}
INSTEAD = "duplicate the offer, change the copy, and archive this one"


class CountriesField(forms.CharField):
    """Countries that parcels go to: codes or English names, separated by commas."""

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(value) if isinstance(value, list) else value

    def to_python(self, value: Any) -> Any:
        """The codes, each once; raises ``ValidationError`` that says what is meant instead."""
        codes = {name.casefold(): code for code, name in countries.names().items()}
        chosen, unknown = [], []
        for text in re.split(r"[,;\n]", super().to_python(value) or ""):
            given = " ".join(text.split())
            code = codes.get(given.casefold(), given.upper())
            if code in countries.SHIPPABLE:
                chosen.append(code)
            elif given:
                like = difflib.get_close_matches(given.casefold(), codes, n=1)
                meant = f" (did you mean {codes[like[0]]}?)" if like else ""
                unknown.append(f"{given}{meant}")
        if unknown:
            raise forms.ValidationError(
                f"Stripe asks no address for {', '.join(unknown)}: use the countries' two-letter "
                "codes or English names, separated by commas."
            )
        return list(dict.fromkeys(chosen))

    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            return bool(self.to_python(data) != (initial or []))
        except forms.ValidationError:
            return True


def _countries_help() -> str:
    every = ", ".join(f"{code} {name}" for code, name in countries.names().items())
    return format_html(
        "Where it is sent to: codes or names, separated by commas, for example DE, AT, "
        "Switzerland. Empty: nowhere. <details><summary>All of them</summary>{}</details>",
        every,
    )


@cache
def currency_names() -> dict[str, str]:
    """Code -> name in English of what Stripe charges in, in the order of the codes."""
    names = Locale("en").currencies
    return {code: names.get(code, code) for code in sorted(money.CURRENCIES)}


class CurrencyWidget(UnfoldAdminTextInputWidget):
    """A text field that proposes every currency; the browser does that, without a script."""

    def render(self, name: str, value: Any, attrs: Any = None, renderer: Any = None) -> SafeString:
        codes = f"{name}_codes"
        options = format_html_join("", '<option value="{}">{}</option>', currency_names().items())
        return format_html(
            '{}<datalist id="{}">{}</datalist>',
            super().render(name, value, {**(attrs or {}), "list": codes}, renderer),
            codes,
            options,
        )


class CurrencyField(forms.CharField):
    """A currency by its code, its sign or its English name; the value is the code."""

    widget = CurrencyWidget

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value) or ""
        by_name = {name.casefold(): code for code, name in currency_names().items()}
        return SIGNS.get(text) or by_name.get(text.casefold()) or text.upper()

    def validate(self, value: Any) -> None:
        super().validate(value)
        if value in money.CURRENCIES:
            return
        named = {name.upper(): code for code, name in currency_names().items()}
        # A name is what somebody writes who doesn't know the code: of codes all look alike.
        like = difflib.get_close_matches(value, [*named, *money.CURRENCIES], n=1, cutoff=0.5)
        code = named.get(like[0], like[0]) if like else ""
        meant = f"did you mean {code} ({currency_names()[code]})?" if code else "for example EUR."
        raise forms.ValidationError(
            f"{value} is not a currency that Stripe charges in: use a three-letter code, {meant}"
        )


def price_hint(currency: str) -> str:
    """What a price in ``currency`` (of any kind of text) may be."""
    if currency not in money.CURRENCIES:
        return "0 is free."
    minimum = money.MINIMUM_CHARGE.get(currency)
    if minimum is None:
        return f"What one unit costs in {currency}. 0 is free."
    least = money.format_amount(minimum, currency)
    return f"What one unit costs. 0 is free, otherwise at least {least} {currency}."


class OfferForm(forms.ModelForm):
    """The base of the admin's form, which adds the model and its fields."""

    currency = CurrencyField(
        initial="USD",
        max_length=100,
        error_messages={"required": "Say which currency, for example EUR."},
        help_text="Three letters, for example EUR: start typing a code or a name.",
    )
    shipping_countries = CountriesField(
        label="Sent to",
        required=False,
        strip=True,
        help_text=lazy(_countries_help, str)(),
        widget=UnfoldAdminTextInputWidget,
    )
    # When the offer that the page shows was changed last; purchases don't count.
    shown_at = forms.CharField(required=False, widget=forms.HiddenInput)

    class Meta:
        labels: ClassVar = {
            "offer_type": "Type",
            "image_url": "Picture",
            "original_price": "Original price",
            "inventory_total": "Total",
            "max_per_user": "Most per attendee",
            "is_active": "On sale",
            "starts_at": "On sale from (UTC)",
            "expires_at": "On sale until (UTC)",
            "target_sessions": "Sessions",
            "target_ticket_tiers": "Ticket tiers",
            "ticket_tier": "Upgrades to",
            "allows_collection": "Can be collected at the event",
        }
        help_texts: ClassVar = {
            "event": "Whose attendees can buy it. Another event needs an offer of its own.",
            "offer_type": "How buyers get it: it decides what is asked under Delivery below.",
            "description": "Plain text; line breaks stay.",
            "image_url": "Address of a picture, https:// only. It is shown on the card.",
            "original_price": "The price before the reduction, shown struck through. Empty: none.",
            "inventory_total": "How many can be sold in all. Empty: unlimited.",
            "max_per_user": "How many one attendee may buy in all. Empty: no limit.",
            "placement": "Checkout: beside the ticket. Post purchase: once the ticket is bought. "
            "In event: while it goes on. E-mail: in what you send.",
            "is_active": "Off: nobody sees it, and nobody can buy it.",
            "starts_at": "Times are UTC. Empty: at once.",
            "expires_at": "Times are UTC. Empty: until it is sold out.",
            "target_sessions": "Only who attends one of these sees it. Empty: everyone.",
            "target_ticket_tiers": "Only who holds one of these tickets sees it. Empty: everyone.",
            "allows_collection": "Buyers show their code at your check-in.",
            "ticket_tier": "The ticket tier that buyers are moved to.",
        }
        error_messages: ClassVar = {
            "event": {
                "required": "Choose whose attendees can buy it.",
                "invalid_choice": "Choose one of your own events from the list.",
            },
            "title": {"required": "Give it a name that attendees understand at a glance."},
            "offer_type": {"required": "Choose what is sold: buyers get it in a way of its own."},
            "price": {
                "required": "Say what one unit costs; 0 is free.",
                "invalid": "Write the price as a number, for example 12.50.",
                "min_value": "A price can't be below 0; 0 is free.",
                "max_decimal_places": "No currency has so many digits: write at most two or three.",
                "max_digits": "No such amount can be charged: it is too large.",
                "max_whole_digits": "No such amount can be charged: it is too large.",
            },
            "original_price": {
                "invalid": "Write the price as a number, for example 19.50, or leave it empty.",
            },
            "image_url": {
                "invalid": "Give a whole address that begins with https://: browsers refuse others."
            },
            "inventory_total": {
                "invalid": "Write a whole number, or leave it empty for an unlimited offer.",
                "min_value": "A total can't be below 0. Leave it empty for an unlimited offer.",
            },
            "max_per_user": {
                "invalid": "Write a whole number, or leave it empty for no limit.",
                "min_value": "At least 1, or leave it empty for no limit.",
            },
            "target_sessions": {"invalid_choice": "Choose sessions of your own from the list."},
            "target_ticket_tiers": {"invalid_choice": "Choose ticket tiers of your own."},
            "ticket_tier": {"invalid_choice": "Choose one of the event's ticket tiers."},
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Support only looks: the form that it is shown has no fields.
        if "price" not in self.fields:
            return
        stored = not self.instance._state.adding
        currency = self.instance.currency if stored else self.get_initial_for_field(
            self.fields["currency"], "currency"
        )  # fmt: skip
        self._write_amounts_as_their_currency_does(str(currency))
        self.fields["price"].help_text = format_html(
            '<span id="price_hint">{}</span>', price_hint(str(self["currency"].value()).upper())
        )
        for name in ("price", "original_price"):
            self.fields[name].widget.attrs["step"] = "any"
        self.fields["inventory_total"].widget.attrs["min"] = 0
        self.fields["max_per_user"].widget.attrs["min"] = 1
        self.fields["image_url"].validators = [URLValidator(schemes=["https"])]
        if stored:
            self.initial["shown_at"] = self.instance.updated_at.isoformat()
            self._say_what_stands()
        else:
            del self.fields["shown_at"]

    def _write_amounts_as_their_currency_does(self, currency: str) -> None:
        if currency not in money.CURRENCIES:
            return
        for name in ("price", "original_price"):
            value = self.initial.get(name)
            if isinstance(value, Decimal) and money.is_chargeable(value, currency):
                self.initial[name] = Decimal(money.format_amount(value, currency))

    def _say_what_stands(self) -> None:
        offer = self.instance
        if offer.inventory_sold:
            stands = f"{offer.inventory_sold} sold, so it stands. To change it: {INSTEAD}."
            self.fields["price"].help_text = self.fields["currency"].help_text = stands
        if offer.inventory_sold or offer.inventory_reserved:
            self.fields[
                "offer_type"
            ].help_text = f"{_promised(offer)}, so it stands. To change it: {INSTEAD}."

    def clean(self) -> dict[str, Any]:
        """Add the rules that need the stored offer or its targets to those of ``Offer.clean``."""
        data = super().clean() or {}
        if event := data.get("event"):
            wrong = targeting.foreign_targets(
                event, data.get("target_sessions", []), data.get("target_ticket_tiers", [])
            )
            for field, message in wrong.items():
                self.add_error(field, message)
        if not self.instance._state.adding:
            self._refuse_what_sales_forbid(data)
        return data

    def _refuse_what_sales_forbid(self, data: dict[str, Any]) -> None:
        # Locked until admin's transaction ends: nothing is sold between this check and the save.
        stored = inventory.lock(self.instance.pk)
        if self._is_of_something_older(stored):
            self._tell_what_changed(stored)
            return
        if "event" in self.changed_data:
            self.add_error("event", "An offer can't move to another event: make a new one there.")
        asked = {name: data.get(name, getattr(stored, name)) for name in ("price", "currency")}
        try:
            stored.refuse_price_change(**asked)
        except PriceLocked:
            for name in asked:
                if asked[name] != getattr(stored, name):
                    self.add_error(
                        name,
                        f"{stored.inventory_sold} sold at {_price_of(stored)}: this can't change "
                        f"any more. Instead: {INSTEAD}.",
                    )
        try:
            stored.refuse_type_change(data.get("offer_type") or stored.offer_type)
        except TypeLocked:
            self.add_error(
                "offer_type",
                f"{_promised(stored)}: its buyers would not get what they bought. "
                f"Instead: {INSTEAD}.",
            )
        try:
            stored.refuse_total(data.get("inventory_total"))
        except TotalBelowCommitted as error:
            self.add_error("inventory_total", str(error))

    def _is_of_something_older(self, stored: Offer) -> bool:
        """Whether saving would undo what somebody did since the page was opened."""
        differs = set(self.changed_data) - {"shown_at"}
        # The one that the form would save was read before the lock, with what no field shows.
        if stored.updated_at != self.instance.updated_at:
            return True
        return bool(differs) and self.data.get("shown_at") != stored.updated_at.isoformat()

    def _tell_what_changed(self, stored: Offer) -> None:
        """Refuse, this time: who saves again has read what would be lost."""
        sent: Any = self.data.copy()  # type: ignore[attr-defined] # what a browser sent has it
        sent["shown_at"] = stored.updated_at.isoformat()
        self.data = sent
        self.add_error(
            None,
            "This offer was changed after you opened this page, by somebody else or in another "
            "window. Compare what is said beside the fields: if you save again, what you see "
            "here is what counts.",
        )
        now = type(self)(instance=stored)
        for name in self.changed_data:
            if name != "shown_at" and name not in self.errors:
                self.add_error(name, f"Stored by now: {said(now[name])}.")

    def _post_clean(self) -> None:
        """Leave out what the model says of the amounts in a currency that nobody chose."""
        before = set(self.errors)
        super()._post_clean()  # type: ignore[misc] # Django's, which its stubs leave out
        if "currency" in before:
            for name in {"price", "original_price"} - before:
                self.errors.pop(name, None)


def _promised(offer: Offer) -> str:
    return f"{offer.inventory_sold} sold and {offer.inventory_reserved} on hold"


def _price_of(offer: Offer) -> str:
    return f"{money.format_amount(offer.price, offer.currency)} {offer.currency}"
