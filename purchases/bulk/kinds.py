"""What can be done to many rows at once: each app adds its own kinds when it is loaded."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from django.apps import apps
from django.contrib.auth.models import User
from django.db.models import Model, QuerySet

from offers.asking import AskingForm
from offers.scoped_admin import EDITORS, Roles
from purchases.bulk.errors import UnknownKind
from purchases.bulk.models import BulkJob


@dataclass(frozen=True)
class Task:
    """One item's turn. ``is_again``: it was begun before, by a worker that may have been killed."""

    job_id: uuid.UUID
    object_id: uuid.UUID
    actor: User
    parameters: dict[str, Any]
    now: datetime
    is_again: bool


class JobForm(AskingForm):
    """What is asked before a job starts; ``cleaned_data`` becomes its parameters."""

    def __init__(self, *args: Any, job: BulkJob, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.job = job

    def parameters(self) -> dict[str, Any]:
        """The answers, as JSON has them."""
        return dict(self.cleaned_data)


@dataclass(frozen=True)
class Kind:
    """One action.

    ``do`` is a function of the domain's with an item around it. It returns why nothing was done,
    or "" if it was; what it refuses by a ``DomainError`` is told by its message. Unless
    ``is_one_transaction`` it may speak to the network, and has to cope with being run twice.
    ``organization`` leads from the model to the organization, as a lookup does. Only members with
    one of ``roles`` in it may have it done. ``about`` says what will happen to the chosen ones.
    ``naming`` is what one is called in the list of what wasn't done; it needs ``related``.

    To one object it isn't done twice within ``not_again_within``, by whomever: a second job over
    it is taken for a repetition, unless its answers named in ``another_if`` are others.
    """

    name: str
    title: str
    button: str
    explanation: str
    model: str
    organization: str
    do: Callable[[Task], str]
    about: Callable[[QuerySet], list[str]]
    roles: Roles = EDITORS
    form: type[JobForm] = JobForm
    is_one_transaction: bool = True
    naming: Callable[[Any], str] = str
    related: tuple[str, ...] = ()
    not_again_within: timedelta = timedelta(minutes=5)
    another_if: tuple[str, ...] = ()

    def objects(self) -> QuerySet:
        model = cast("type[Model]", apps.get_model(self.model))
        return model._default_manager.all()

    def chosen(self, job: BulkJob) -> QuerySet:
        """The objects of a job."""
        return self.objects().filter(pk__in=job.items.values("object_id"))

    def names(self, objects: QuerySet) -> dict[uuid.UUID, str]:
        """What each of the objects is called, by its key."""
        found = objects.select_related(*self.related) if self.related else objects
        return {each.pk: self.naming(each) for each in found}


_kinds: dict[str, Kind] = {}


def register(*kinds: Kind) -> None:
    """Make these known; called once, when an app is loaded. Raises ``ValueError`` for a name
    that is taken: a job would do what another one was asked for.
    """
    for kind in kinds:
        if kind.name in _kinds:
            raise ValueError(f"There is a bulk action {kind.name!r} already.")
        _kinds[kind.name] = kind


def of(name: str) -> Kind:
    """The kind of that name; raises ``UnknownKind``. Pages of old jobs use ``find``."""
    kind = find(name)
    if kind is None:
        raise UnknownKind
    return kind


def find(name: str) -> Kind | None:
    """The kind of that name, if a release since then hasn't dropped it."""
    return _kinds.get(name)


def title_of(job: BulkJob) -> str:
    """What a job is called; one of a kind that is no more goes by its name."""
    kind = find(job.kind)
    return kind.title if kind else job.kind


def names() -> list[tuple[str, str]]:
    return [(kind.name, kind.title) for kind in _kinds.values()]
