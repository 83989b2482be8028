"""The forms of accounts: labels, what browsers fill in by themselves, errors beside their field."""

from typing import Any

from django import forms
from django.contrib.auth.forms import AuthenticationForm, PasswordChangeForm, SetPasswordForm
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from offers_project.accounts.addresses import normal, user_name_for
from purchases.mail import one_line

LONGEST = 150  # a user name's, which the address becomes


class ShowsErrors(forms.Form):
    """Base: the first field with an error gets the focus.

    What is wrong with no field alone is said above the form, to which every field then refers.
    """

    ABOVE = "form-error"  # its id in the template

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.label_suffix = ""

    def full_clean(self) -> None:
        super().full_clean()
        if not self._errors:
            return
        above = bool(self.non_field_errors())
        wrong = [name for name in self.fields if name in self._errors or above]
        for name in self.fields:
            self.fields[name].widget.attrs.pop("autofocus", None)
        for name in wrong:
            if above:
                self.fields[name].widget.attrs |= {
                    "aria-invalid": "true",
                    "aria-describedby": self.ABOVE,
                }
        for name in wrong[:1]:
            self.fields[name].widget.attrs["autofocus"] = True


class LoginForm(ShowsErrors, AuthenticationForm):
    """Django's, which takes the e-mail address for the user name too."""

    error_messages = {  # noqa: RUF012 - Django's own isn't a ClassVar for its stubs either
        **AuthenticationForm.error_messages,
        "invalid_login": _(
            "No account here has this name or address together with this password. Please try "
            "again: passwords are case-sensitive."
        ),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["username"].label = _("E-mail address or user name")

    def clean(self) -> dict[str, Any]:
        typed = self.cleaned_data.get("username")
        if typed and self.cleaned_data.get("password"):
            self.cleaned_data["username"] = user_name_for(typed)
        return super().clean()


class AddressForm(ShowsErrors):
    """Asks for an e-mail address, and takes each in one spelling only."""

    email = forms.EmailField(
        label=_("E-mail address"),
        max_length=LONGEST,
        widget=forms.EmailInput(attrs={"autocomplete": "email"}),
        error_messages={
            "invalid": _("This is no e-mail address. It should look like anna@example.org.")
        },
    )

    def clean_email(self) -> str:
        address = normal(self.cleaned_data["email"])
        if address is None or len(address) > LONGEST:
            raise ValidationError(
                gettext("We can't send anything to this address. Please use another one.")
            )
        return address


def name_field() -> forms.CharField:
    return forms.CharField(
        label=_("Your name"),
        max_length=150,
        widget=forms.TextInput(attrs={"autocomplete": "name"}),
        help_text=_("Shown to the people at the entrance and in our e-mails to you."),
    )


class RegistrationForm(AddressForm):
    name = name_field()

    def clean_name(self) -> str:
        return _on_one_line(self.cleaned_data["name"])


class ChecksNewPassword(ShowsErrors):
    """Says why a password is too weak beside the first field, where it is typed."""

    user: User

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["new_password2"].label = _("The new password once more")
        self.fields["new_password2"].help_text = ""

    def validate_password_for_user(self, user: User, password_field_name: str = "") -> None:
        super().validate_password_for_user(user, "new_password1")  # type: ignore[misc]  # not in the stubs


class FirstPasswordForm(ChecksNewPassword, SetPasswordForm):
    """Ends a registration: the name once more, since a stranger may have typed it, and a password.

    ``user`` is not saved here; ``registering.register`` makes the account.
    """

    name = name_field()
    field_order = ("name", "new_password1", "new_password2")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["new_password1"].label = _("Password")
        self.fields["new_password2"].label = _("The password once more")

    def clean_name(self) -> str:
        name = _on_one_line(self.cleaned_data["name"])
        self.user.first_name = name  # which a password must not be like
        return name


class NewPasswordForm(ChecksNewPassword, SetPasswordForm):
    """After a forgotten password."""


class ChangePasswordForm(ChecksNewPassword, PasswordChangeForm):
    """With the old password, for who is logged in."""


def _on_one_line(text: str) -> str:
    name = one_line(text)
    if not name:
        raise ValidationError(gettext("Please enter a name."))
    return name
