from django.utils.translation import gettext_lazy as _

from offers.errors import DomainError


class CodeNotFound(DomainError):
    """Unknown, or somebody else's: whoever asks must not learn which."""

    code = "not_found"
    message = "None of your events has this code. Was it typed as it is printed?"


class NoCodeToShow(DomainError):
    """The purchase isn't the caller's, has no code, or its code isn't handed out (any more)."""

    code = "not_found"
    message = _("There is no code to show for this purchase.")
