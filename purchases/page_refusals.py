"""Forms of the attendee's pages whose refusal is told on a page, and not by a status alone."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError as FormError
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from rest_framework import serializers

from offers.errors import Busy, DomainError, database_is_busy

View = Callable[..., HttpResponse]


def telling_why_not(back_to: Callable[..., HttpResponse]) -> Callable[[View], View]:
    """A form whose refusal is shown on the page that ``back_to`` leads to."""

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            try:
                return view(request, *args, **kwargs)
            except DomainError as refusal:
                messages.error(request, str(refusal))
            except OperationalError as error:
                if not database_is_busy(error):
                    raise
                messages.error(request, Busy.message)
            except FormError:
                messages.error(request, _("This form is damaged: load the page again."))
            except serializers.ValidationError as refusal:
                fields: Any = refusal.detail
                for reasons in fields.values():
                    messages.error(request, " ".join(reasons))
            return back_to(*args, **kwargs)

        return guarded

    return decorate
