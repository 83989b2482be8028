"""Why a bulk action isn't even begun. No HTTP here: ``http_errors.py`` maps these."""

from offers.errors import DomainError


class TooManyChosen(DomainError):
    code = "too_many_chosen"

    def __init__(self, *, limit: int) -> None:
        super().__init__(f"At most {limit:,} at once: narrow the list with its filters first.")


class SeveralOrganizations(DomainError):
    """A job belongs to one organization, whose members see it; only superusers' may be of many."""

    code = "several_organizations"
    message = "These belong to several organizations: choose those of one at a time."
