"""What staff are asked before money goes back, of one purchase or of many."""

from django import forms


class RefundFields(forms.Form):
    """Mixed into the forms of both; each checks the amount as far as it can."""

    amount = forms.DecimalField(
        required=False,
        max_digits=15,
        decimal_places=3,
        help_text="Leave it empty to send back all that is left; a part keeps the units sold.",
    )
    restock = forms.BooleanField(
        required=False,
        initial=True,
        label="Put the units back on sale",
        help_text="After a full refund; otherwise the offer's total shrinks by them.",
    )
    reason = forms.CharField(
        required=False, max_length=500, help_text="It stays on record with your name."
    )
