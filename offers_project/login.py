"""The login page, of attendees and of admin, with the same limits as the API's token."""

from django.contrib.auth.views import LoginView
from django.http import HttpRequest, HttpResponse

from offers.throttling import LoginsPerAddress, LoginsPerName


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
