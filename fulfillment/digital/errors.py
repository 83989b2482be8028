"""Why content can't be opened, or codes can't be taken in."""

from collections.abc import Sequence

from django.utils.translation import gettext_lazy as _

from offers.errors import DomainError

SHOWN_PROBLEMS = 20


class LinkUnknown(DomainError):
    """Not signed by us, or of a purchase that got no content."""

    code = "link_unknown"
    message = _("This link is not complete. Open it from your purchase again.")


class LinkExpired(DomainError):
    code = "link_expired"
    message = _("This link has expired. Your purchase has a new one for you.")


class ContentWithdrawn(DomainError):
    """The link is right, but what it was bought with isn't paid any more, or was revoked.

    Raised with a message that says which.
    """

    code = "content_withdrawn"
    message = _("This can't be opened any more.")


class NothingToOpen(DomainError):
    code = "nothing_to_open"
    message = _("The organizer has nothing to open here at the moment.")


class ContentOutOfReach(DomainError):
    """The storage doesn't give the file out; alerted where it is raised."""

    code = "content_out_of_reach"
    message = _("The file can't be read at the moment. We know of it: try again a little later.")
    retry_after = 60


class ContentNotStored(DomainError):
    """The storage didn't take an upload; logged where it is raised."""

    code = "content_not_stored"
    message = "The storage didn't take it, and nothing was changed: try again a little later."
    retry_after = 60
    attr = "file"


class CodesRefused(DomainError):
    """Nothing of an import was taken; ``problems`` says line by line what is wrong."""

    code = "codes_refused"
    attr = "codes"

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems[:SHOWN_PROBLEMS])
        if (more := len(problems) - SHOWN_PROBLEMS) > 0:
            self.problems.append(f"… and {more:,} more.")
        super().__init__(" ".join(self.problems))
