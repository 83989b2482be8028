"""Who somebody is, and what that alone allows: the login page, token renewal, permissions."""

from typing import Any

from django.contrib import admin
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import User
from django.contrib.auth.views import LoginView
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from rest_framework_simplejwt.exceptions import InvalidToken
from rest_framework_simplejwt.serializers import TokenRefreshSerializer
from rest_framework_simplejwt.settings import api_settings
from rest_framework_simplejwt.utils import get_md5_hash_password

from offers.throttling import LoginsPerAddress, LoginsPerName


class ByMembership(ModelBackend):
    """Django's accounts without Django's model permissions.

    Superusers may do everything (Django asks no backend about them); everybody else what their
    memberships say, on the pages that ask for those. So whatever else has an admin page (accounts,
    switches, what an app brings along) is closed to all others, and no permission that was ticked
    by mistake opens it.
    """

    def get_all_permissions(self, user_obj: Any, obj: Any = None) -> set[str]:
        return set()


class LimitedLogin(LoginView):
    """Django's login, which refuses to check one password after another."""

    def post(self, request: HttpRequest, *args: object, **kwargs: object) -> HttpResponse:
        """Count the attempt; 429 with ``Retry-After`` when it is one too many."""
        for limit in (LoginsPerName(), LoginsPerAddress()):
            if not limit.allow_request(request, self):
                seconds = int(limit.wait())
                context = self.get_context_data(form=self.get_form_class()(request), wait=seconds)
                answer = self.render_to_response(context, status=429)
                answer["Retry-After"] = str(seconds)
                return answer
        return super().post(request, *args, **kwargs)


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
