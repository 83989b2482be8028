"""What staff are asked about parcels. The rules are in ``fulfillment.shipping.orders``."""

from typing import Any

from django import forms

from fulfillment.shipping.models import ShippingOrder
from fulfillment.shipping.packing import LARGEST
from offers import countries
from offers.asking import AskingForm


class CarrierForm(AskingForm):
    """What holds for all rows that say nothing else."""

    carrier = forms.CharField(
        required=False,
        label="Carrier for all",
        help_text="For rows without a carrier of their own, for example DHL.",
    )
    untracked = forms.BooleanField(
        required=False,
        label="Sent without tracking",
        help_text="Tick it if rows without a number were sent as well; else they stay as they are.",
    )


class ShipmentForm(AskingForm):
    """One row: an order with its carrier and tracking number.

    It carries what it showed, since a colleague may ship the order while it is open.
    """

    carrier = forms.CharField(required=False, label="Carrier")
    tracking_number = forms.CharField(required=False, label="Tracking number")
    tracking_url = forms.CharField(
        required=False,
        label="Link",
        widget=forms.TextInput(attrs={"placeholder": "https://…"}),
    )

    def __init__(self, order: ShippingOrder, data: Any = None) -> None:
        initial = {field: getattr(order, field) for field in self.base_fields}
        super().__init__(data, prefix=str(order.pk), initial=initial)
        self.order = order
        for field in self.fields.values():
            field.show_hidden_initial = True
            # Its column says the same to who sees the table.
            field.widget.attrs["aria-label"] = f"{field.label}, {order.fulfillment.purchase}"


class AddressForm(AskingForm, forms.ModelForm):
    country = forms.ChoiceField(
        choices=lambda: [("", "---------"), *countries.names().items()], required=False
    )

    class Meta:
        model = ShippingOrder
        fields = ("name", "line1", "line2", "postal_code", "city", "state", "country")


class TrackingFileForm(AskingForm):
    file = forms.FileField(
        label="CSV file",
        help_text="With the columns purchase, carrier and tracking_number (and tracking_url): the "
        "packing list with its last columns filled in. Lines without a number are left alone.",
    )

    def clean_file(self) -> Any:
        file = self.cleaned_data["file"]
        if file.size > LARGEST:
            raise forms.ValidationError("This file is too large to be one of tracking numbers.")
        return file
