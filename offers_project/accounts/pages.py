"""Pages on which people open an account and choose a password. They show; the domain decides.

Where somebody was on the way to (``next``) goes along from page to page, through the letter too,
and is asked at each step whether it is a page of ours.
"""

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import login
from django.contrib.auth.models import User
from django.contrib.auth.views import (
    PasswordChangeView,
    PasswordResetConfirmView,
    RedirectURLMixin,
)
from django.forms import Form
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render, resolve_url
from django.urls import reverse, reverse_lazy
from django.utils.decorators import method_decorator
from django.utils.http import url_has_allowed_host_and_scheme, urlencode
from django.utils.translation import get_language
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_safe
from django.views.generic import FormView, TemplateView

from offers_project.accounts import letters, registering
from offers_project.accounts.forms import (
    AddressForm,
    ChangePasswordForm,
    FirstPasswordForm,
    NewPasswordForm,
    RegistrationForm,
)
from offers_project.accounts.limits import LettersPerAddress, LettersPerMailbox
from offers_project.accounts.models import AccountLetter
from offers_project.login import Limited

# In the session: where the letter went, the token of the link, and where to after a new password.
SENT_TO = "letter_sent_to"
TOKEN = "registration_token"  # noqa: S105 - its name
NEXT = "next_after_password"


def page_of_ours(request: HttpRequest, url: str | None) -> str:
    """``url`` if it leads nowhere else, or ""."""
    ours = url_has_allowed_host_and_scheme(
        url, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    return url if url and ours else ""


# -- Asking for a letter --------------------------------------------------------------------------


@method_decorator(never_cache, name="dispatch")
class AsksForLetter(Limited, RedirectURLMixin, FormView):
    """A form with an e-mail address, which is answered in the same way whoever's it is."""

    limits = (LettersPerMailbox, LettersPerAddress)
    kind: str
    sent_page: str

    def get_redirect_url(self) -> str:
        """Django's, which has at most ``django.utils.http.MAX_URL_LENGTH`` characters.

        "" with a NUL in it too: the letter's row keeps it, and PostgreSQL takes none.
        """
        url: str = super().get_redirect_url()
        return "" if "\x00" in url else url

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        context: dict[str, Any] = super().get_context_data(**kwargs)
        return {"next": self.get_redirect_url()} | context

    def form_valid(self, form: Form) -> HttpResponse:
        """Have the letter written, unless there were too many."""
        refused = self.refusal(form)
        if refused:
            return refused
        data = form.cleaned_data
        request = self.request
        letters.ask_for(
            self.kind,
            data["email"],
            name=data.get("name", ""),
            next_page=self.get_redirect_url(),
            language=get_language() or settings.LANGUAGE_CODE,
            site=settings.FRONTEND_URL or request.build_absolute_uri("/").rstrip("/"),
        )
        request.session[SENT_TO] = data["email"]
        query = urlencode({"next": self.get_redirect_url()}) if self.get_redirect_url() else ""
        return redirect(reverse(self.sent_page) + (query and f"?{query}"))


class Register(AsksForLetter):
    """Begins a registration; there is no account before the letter's link is used."""

    form_class = RegistrationForm
    template_name = "registration/register.html"
    kind = AccountLetter.Kind.REGISTRATION
    sent_page = "register-sent"

    def get(self, request: HttpRequest, *args: object, **kwargs: object) -> HttpResponse:
        """Who is logged in has an account, and goes on to where they wanted to."""
        if request.user.is_authenticated:
            onward = self.get_redirect_url() or resolve_url(settings.LOGIN_REDIRECT_URL)
            return HttpResponseRedirect(onward)
        return super().get(request, *args, **kwargs)


class ResetPassword(AsksForLetter):
    """For a forgotten password."""

    form_class = AddressForm
    template_name = "registration/forgotten.html"
    kind = AccountLetter.Kind.PASSWORD_RESET
    sent_page = "password-reset-sent"


@method_decorator(never_cache, name="dispatch")
class LetterSent(RedirectURLMixin, TemplateView):
    """Says where the letter went, to whoever asked for it; everybody else is asked first."""

    form_page: str

    def get(self, request: HttpRequest, *args: object, **kwargs: object) -> HttpResponse:
        address = request.session.get(SENT_TO)
        if not address:
            return redirect(self.form_page)
        hours = settings.PASSWORD_RESET_TIMEOUT // 3600
        return self.render_to_response(
            {"address": address, "hours": hours, "next": self.get_redirect_url()}
        )


class RegisterSent(LetterSent):
    template_name = "registration/register_sent.html"
    form_page = "register"


class ResetSent(LetterSent):
    template_name = "registration/forgotten_sent.html"
    form_page = "password-reset"


# -- The letter's link ----------------------------------------------------------------------------


@require_safe
@never_cache
def register_link(request: HttpRequest, token: str) -> HttpResponse:
    """Where the letter leads: on to a page whose address may be seen by others.

    It uses nothing up, since mail programs look at links before people do.
    """
    if registering.opened_by(token) is None:
        return link_is_over(request)
    request.session[TOKEN] = token
    return redirect("register-password")


def link_is_over(request: HttpRequest, form_page: str = "register") -> HttpResponse:
    """Used, too old, or no link of ours: ``form_page`` is where to ask for another letter."""
    return render(
        request, "registration/link_is_over.html", {"again": reverse(form_page)}, status=404
    )


@method_decorator([never_cache, sensitive_post_parameters()], name="dispatch")
class FirstPassword(FormView):
    """Ends a registration with a password, and goes on to where it began."""

    form_class = FirstPasswordForm
    template_name = "registration/first_password.html"
    letter: AccountLetter

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        letter = registering.opened_by(request.session.get(TOKEN, ""))
        if letter is None:
            return link_is_over(request)
        self.letter = letter
        return super().dispatch(request, *args, **kwargs)

    def get_form_kwargs(self) -> dict[str, Any]:
        address = self.letter.address
        nobody_yet = User(username=address, email=address)
        return super().get_form_kwargs() | {"user": nobody_yet}

    def get_initial(self) -> dict[str, Any]:
        return {"name": self.letter.name}

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        context: dict[str, Any] = super().get_context_data(**kwargs)
        return context | {"address": self.letter.address}

    def form_valid(self, form: Form) -> HttpResponse:
        user = registering.register(
            self.letter, name=form.cleaned_data["name"], password=form.cleaned_data["new_password1"]
        )
        if user is None:
            return link_is_over(self.request)
        self.request.session.pop(TOKEN, None)
        login(self.request, user)
        messages.success(self.request, _("Welcome! Your account is ready, and you are logged in."))
        onward = page_of_ours(self.request, self.letter.next) or resolve_url("events-page")
        return HttpResponseRedirect(onward)


class NewPassword(PasswordResetConfirmView):
    """Django's page of the link in the letter about a forgotten password."""

    form_class = NewPasswordForm
    template_name = "registration/new_password.html"
    post_reset_login = True

    def get_user(self, uidb64: str) -> User | None:
        """None also for an account that was closed, or lost its password, after the letter."""
        user = super().get_user(uidb64)
        return user if user and user.is_active and user.has_usable_password() else None

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Keep ``next`` while Django leads on to an address without the token."""
        if kwargs["token"] != self.reset_url_token:
            request.session[NEXT] = page_of_ours(request, request.GET.get("next"))
        return super().dispatch(request, *args, **kwargs)

    def get_success_url(self) -> str:
        messages.success(self.request, _("Your new password is set, and you are logged in."))
        onward = page_of_ours(self.request, self.request.session.pop(NEXT, ""))
        return onward or resolve_url(settings.LOGIN_REDIRECT_URL)

    def render_to_response(self, context: dict[str, Any], **more: Any) -> HttpResponse:
        if not context["validlink"]:
            return link_is_over(self.request, "password-reset")
        return super().render_to_response(context, **more)


class ChangePassword(PasswordChangeView):
    """For who knows the old one; every other session and every token ends."""

    form_class = ChangePasswordForm
    template_name = "registration/change_password.html"
    success_url = reverse_lazy("purchases-page")

    def form_valid(self, form: Form) -> HttpResponse:
        answer = super().form_valid(form)
        messages.success(
            self.request,
            _("Your password is changed. You are logged out everywhere else."),
        )
        return answer
