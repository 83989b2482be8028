"""Why a bulk action isn't even begun. No HTTP here: ``http_errors.py`` maps these."""

import uuid

from offers.errors import DomainError


class TooManyChosen(DomainError):
    code = "too_many_chosen"

    def __init__(self, *, limit: int) -> None:
        super().__init__(f"At most {limit:,} at once: narrow the list with its filters first.")


class SeveralOrganizations(DomainError):
    """A job belongs to one organization, whose members see it; only superusers' may be of many."""

    code = "several_organizations"
    message = "These belong to several organizations: choose those of one at a time."


class AskedForAlready(DomainError):
    """Another job does the same to some of these, or has just done it: ``job_id`` says which."""

    code = "asked_for_already"

    def __init__(self, *, job_id: uuid.UUID, number: int) -> None:
        self.job_id = job_id
        super().__init__(
            f"The same is being done to {number:,} of these, or has been in the last minutes, by "
            "another bulk action: nothing was started."
        )


class UnknownKind(DomainError):
    """A job of an action that the service no longer has."""

    code = "unknown_kind"
    message = "This action is no more: nothing was done."
