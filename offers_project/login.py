"""Who somebody is, and what that alone allows: the login page, token renewal, permissions."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from django.conf import settings
from django.contrib import admin
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import User
from django.contrib.auth.views import LoginView
from django.forms import Form
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.views.generic import FormView
from rest_framework import authentication
from rest_framework.request import Request
from rest_framework_simplejwt.exceptions import InvalidToken
from rest_framework_simplejwt.serializers import TokenRefreshSerializer
from rest_framework_simplejwt.settings import api_settings
from rest_framework_simplejwt.utils import get_md5_hash_password

from offers.throttling import LoginsPerAddress, LoginsPerName, RateLimit
from offers_project.accounts.addresses import normal
from offers_project.accounts.forms import LoginForm


class ByMembership(ModelBackend):
    """Django's accounts without Django's model permissions.

    Superusers may do everything (Django asks no backend about them); everybody else what their
    memberships say, on the pages that ask for those. So whatever else has an admin page (accounts,
    switches, what an app brings along) is closed to all others, and no permission that was ticked
    by mistake opens it.
    """

    def get_all_permissions(self, user_obj: Any, obj: Any = None) -> set[str]:
        return set()


class SessionAuthentication(authentication.SessionAuthentication):
    """DRF's. Who sends no session's cookie has none, and isn't looked for in any."""

    def authenticate(self, request: Request) -> tuple[Any, None] | None:
        if settings.SESSION_COOKIE_NAME not in request.COOKIES:
            return None
        found: tuple[Any, None] | None = super().authenticate(request)
        return found


class Limited(FormView):
    """Mixed into a page with a form, which asks too much of us when it is sent too often."""

    limits: ClassVar[Sequence[type[RateLimit]]]

    def refusal(self, form: Form) -> HttpResponse | None:
        """Count the attempt; 429 with ``Retry-After`` when it is one too many."""
        for limit in (kind() for kind in self.limits):
            if not limit.allow_request(self.request, self):
                seconds = int(limit.wait())
                context = self.get_context_data(
                    form=form, wait=seconds, wait_minutes=math.ceil(seconds / 60)
                )
                answer = self.render_to_response(context, status=429)
                answer["Retry-After"] = str(seconds)
                return answer
        return None


class LoginsPerAccount(LoginsPerName):
    """Counts attempts on one user name or e-mail address, as the login page understands them.

    In an address's domain are characters that nobody sees, and that count for nothing: each place
    for one would have tries of its own.
    """

    def key(self, request: Any) -> str:
        typed = super().key(request)
        return normal(typed) or typed


class LimitedLogin(Limited, LoginView):
    """Django's login, which refuses to check one password after another."""

    form_class = LoginForm
    limits = (LoginsPerAccount, LoginsPerAddress)

    def post(self, request: HttpRequest, *args: object, **kwargs: object) -> HttpResponse:
        refused = self.refusal(self.get_form_class()(request))
        return refused or super().post(request, *args, **kwargs)


class AttendeeLogin(LimitedLogin):
    """The attendee's, who needs no form when they are logged in and weren't sent here."""

    def get(self, request: HttpRequest, *args: object, **kwargs: object) -> HttpResponse:
        if request.user.is_authenticated and not self.get_redirect_url():
            return HttpResponseRedirect(self.get_success_url())
        return super().get(request, *args, **kwargs)


class BackOfficeLogin(LimitedLogin):
    """The login that the admin sends strangers to; who may not enter hears why, and isn't sent on.

    Django's own would ask an attendee for the password again and again.
    """

    next_page = "admin:index"

    def get(self, request: HttpRequest, *args: object, **kwargs: object) -> HttpResponse:
        """Let in whom the admin lets in (with a bookmark of this page), ask everybody else."""
        if request.user.is_authenticated and admin.site.has_permission(request):
            return HttpResponseRedirect(self.get_success_url())
        return super().get(request, *args, **kwargs)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        context: dict[str, Any] = super().get_context_data(**kwargs)
        return context | {"back_office": True, "refused": self.request.user.is_authenticated}


class CheckedRefresh(TokenRefreshSerializer):
    """Renews an access token, unless the account is closed or has a new password.

    simplejwt itself looks at the password only when an access token is used, and fails on an
    account that was deleted.
    """

    def validate(self, attrs: dict[str, Any]) -> dict[str, str]:
        """Return the new token, or raise what becomes a 401."""
        claims = self.token_class(attrs["refresh"]).payload
        user = User.objects.filter(pk=claims.get(api_settings.USER_ID_CLAIM)).first()
        if not api_settings.USER_AUTHENTICATION_RULE(user):
            raise InvalidToken
        if claims.get(api_settings.REVOKE_TOKEN_CLAIM) != get_md5_hash_password(user.password):
            raise InvalidToken
        return super().validate(attrs)
