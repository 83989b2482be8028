"""Who may do what in the admin: one rule for every page of it.

Superusers may do everything. Everybody else on the staff has the rights of their memberships:
owners and managers edit what belongs to their organization, support looks at it, and nobody sees
anything of another organization. Django's model permissions count for nothing
(``offers_project.login.ByMembership``).

An admin class of our apps is a ``ScopedAdmin``, which says how its model leads to the organization,
or ``SuperusersOnly``. A test walks the registry and fails on any other.
"""

from collections.abc import Callable
from typing import Any, ClassVar, cast
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.models import ADDITION, CHANGE, DELETION
from django.contrib.admin.options import BaseModelAdmin
from django.contrib.admin.utils import get_fields_from_path
from django.contrib.auth.models import User
from django.core.exceptions import FieldDoesNotExist, PermissionDenied, ValidationError
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from unfold.widgets import UnfoldAdminTextInputWidget

from offers import staff_log
from offers.careful_pages import ModelAdmin, TabularInline
from offers.errors import DomainError
from offers.large_lists import FewChoices, LargeList
from offers.models import Membership

# Some modules have the classes without a rule from here.
__all__ = ["ModelAdmin", "TabularInline"]

Roles = frozenset[Membership.Role]

EVERYBODY: Roles = frozenset(Membership.Role)
EDITORS: Roles = frozenset({Membership.Role.OWNER, Membership.Role.MANAGER})
OWNERS: Roles = frozenset({Membership.Role.OWNER})
NOBODY: Roles = frozenset()


def roles_held(request: HttpRequest) -> dict[UUID, str]:
    """Organization -> role of the caller, read once a request, since every page asks many times."""
    # Ours on Django's request, which has no place for it: hence the silenced checks.
    if not hasattr(request, "_roles_held"):
        held = Membership.objects.filter(user=cast("User", request.user))
        request._roles_held = dict(held.values_list("organization", "role"))  # type: ignore[attr-defined]  # ours
    return cast("dict[UUID, str]", request._roles_held)  # type: ignore[attr-defined]  # ours


class AccountField(forms.Field):
    """An account, named by exactly its user name or e-mail address.

    Instead of a choice: nobody may list the accounts, or try out their ids, to find who is there.
    """

    widget = UnfoldAdminTextInputWidget

    def prepare_value(self, value: Any) -> Any:
        """Show the name where the form starts with an account or its id, and what was typed
        otherwise.
        """
        if isinstance(value, User):
            return value.username
        if isinstance(value, int):
            return User.objects.filter(pk=value).values_list("username", flat=True).first()
        return value

    def to_python(self, value: Any) -> User | None:
        text = str(value or "").strip().replace("\x00", "")
        if not text:
            return None
        found = list(User.objects.filter(username=text)) or list(
            User.objects.filter(email__iexact=text)[:2]
        )
        if not found:
            raise ValidationError("No account has exactly this user name or e-mail address.")
        if len(found) > 1:
            raise ValidationError("Several accounts have this e-mail address: give the user name.")
        return found[0]

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Whether it is another account than the one that the form starts with, or its id."""
        try:
            found = self.to_python(data)
        except ValidationError:
            return True
        return bool(getattr(initial, "pk", initial) != getattr(found, "pk", None))


class OwnOnly(FewChoices):
    """A filter that offers only what the caller may see; every scoped list uses it."""

    def visible(self, field: Any, request: HttpRequest, model_admin: Any) -> QuerySet:
        return visible_to(request, field.related_model, model_admin.admin_site)


def visible_to(
    request: HttpRequest,
    model: type[models.Model],
    site: admin.AdminSite,
    *,
    roles: Roles = EVERYBODY,
) -> QuerySet:
    """The objects of ``model`` in organizations where the caller has one of ``roles``.

    Superusers see all, everybody else nothing of a model whose admin is not scoped.
    """
    objects = model._default_manager.all()
    if request.user.is_superuser:
        return objects
    if site.is_registered(model):
        related = site.get_model_admin(model)
        if isinstance(related, ScopedAdmin):
            return related.within(request, objects, roles)
    return objects.none()


class ByRole(BaseModelAdmin):
    """Base of pages and inlines: permissions and choices by the caller's roles.

    ``deleters`` is empty, since what was sold, attended or targeted must keep its record.
    """

    viewers: ClassVar[Roles] = EVERYBODY
    editors: ClassVar[Roles] = EDITORS
    adders: ClassVar[Roles] = EDITORS
    deleters: ClassVar[Roles] = NOBODY

    def organization_of(self, obj: Any) -> UUID:
        """The organization that ``obj`` (of an inline: the object around it) belongs to.

        Each of the two subclasses has its own; Django's metaclass leaves no room for an ABC.
        """
        raise NotImplementedError

    def allows(self, request: HttpRequest, roles: Roles, obj: Any = None) -> bool:
        """Whether the caller has one of ``roles`` in the object's organization, or in any."""
        if request.user.is_superuser:
            return True
        held = roles_held(request)
        if obj is None:
            return not roles.isdisjoint(held.values())
        return held.get(self.organization_of(obj)) in roles

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.allows(request, self.viewers, obj)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.allows(request, self.editors, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.allows(request, self.deleters, obj)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.allows(request, self.viewers)

    def formfield_for_dbfield(self, db_field: Any, request: Any, **kwargs: Any) -> Any:
        if db_field.is_relation and not db_field.many_to_many and db_field.related_model is User:
            return AccountField(
                label=db_field.verbose_name.capitalize(),
                required=not db_field.blank,
                help_text="The exact user name or e-mail address of an account.",
            )
        return super().formfield_for_dbfield(db_field, request, **kwargs)

    def formfield_for_choice_field(self, db_field: Any, request: Any, **kwargs: Any) -> Any:
        """Leave to be chosen what has no default: the first of the list is a wrong guess.

        Of the roles it would be the owner's.
        """
        kwargs.setdefault(
            "choices",
            db_field.get_choices(
                include_blank=db_field.blank or not db_field.has_default(),
                blank_choice=[("", "Choose one")],
            ),
        )
        return super().formfield_for_choice_field(db_field, request, **kwargs)

    def get_field_queryset(self, db: Any, db_field: Any, request: Any) -> Any:
        """Django asks this for the choices of a relation; what isn't among them isn't accepted."""
        ordered = super().get_field_queryset(db, db_field, request)
        if request.user.is_superuser:
            return ordered
        own = visible_to(request, db_field.related_model, self.admin_site, roles=self.editors)
        return own if ordered is None else ordered.filter(pk__in=own.values("pk"))


class StayingForm(forms.ModelForm):
    """Mixed into the form of an existing object: says beside the field what can't be chosen."""

    route: ClassVar[list[str]]
    home: ClassVar[UUID]

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        field, *rest = self.route
        chosen = data.get(field)
        for name in rest:
            chosen = chosen and getattr(chosen, name)
        if chosen and chosen.pk != self.home:
            self.add_error(field, "This can't move to another organization.")
        return data


class ScopedInline(ByRole, TabularInline):
    """Rows within a scoped object: they belong to its organization."""

    extra = 0

    def organization_of(self, obj: Any) -> UUID:
        parent = self.admin_site.get_model_admin(self.parent_model)
        if not isinstance(parent, ScopedAdmin):
            raise TypeError(f"{type(parent).__name__} has scoped rows and is not scoped itself.")
        return parent.organization_of(obj)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.allows(request, self.adders, obj)


class ScopedAdmin(ByRole, LargeList):
    """Pages that show and change what is the caller's organization's, and nothing else.

    ``organization`` leads from the model to it, as a lookup does: ``"event__organization"``. An
    action gets its objects from ``get_queryset``, which is what the caller may see; one that
    changes something narrows them with ``within(request, queryset, self.editors)``.
    """

    organization: ClassVar[str]

    def organization_of(self, obj: Any) -> UUID:
        for name in self.organization.split("__"):
            obj = getattr(obj, name)
        return cast("UUID", getattr(obj, "pk", obj))

    def within(self, request: HttpRequest, queryset: QuerySet, roles: Roles) -> QuerySet:
        """Those of the objects in whose organization the caller has one of ``roles``."""
        if request.user.is_superuser:
            return queryset
        held = [pk for pk, role in roles_held(request).items() if role in roles]
        return queryset.filter(**{f"{self.organization}__in": held})

    def known_to(self, request: HttpRequest, model: type[models.Model]) -> QuerySet:
        """Of what belongs to organizations the caller's own; accounts belong to none."""
        if isinstance(self.admin_site._registry.get(model), ScopedAdmin):
            return visible_to(request, model, self.admin_site)
        return super().known_to(request, model)

    def each(
        self,
        request: HttpRequest,
        queryset: QuerySet,
        do: Callable[..., Any],
        done: str,
        *,
        name: Callable[[Any], object] = str,
        **more: Any,
    ) -> None:
        """Have a function of the domain done to each that the caller may edit; for actions.

        ``do`` gets the key, ``now``, ``source``, ``actor`` and ``more``. What it refuses is told by
        the object's ``name`` with the reason, and how many need another role; what was done is in
        the log of staff actions.
        """
        allowed = self.within(request, queryset, EDITORS)
        done_to: list[models.Model] = []
        for chosen in allowed:
            try:
                do(chosen.pk, now=timezone.now(), source="admin", actor=request.user, **more)
            except DomainError as refusal:
                messages.warning(request, f"{name(chosen)}: {refusal}")
            else:
                done_to.append(chosen)
        staff_log.record(cast("User", request.user), *done_to, message=f"{done.capitalize()}.")
        if refused := queryset.count() - allowed.count():
            messages.error(request, f"{refused} left as they are: this takes a manager's role.")
        if done_to:
            messages.success(request, f"{len(done_to)} {done}.")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.allows(request, self.adders)

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return self.within(request, super().get_queryset(request), self.viewers)

    def get_ordering(self, request: HttpRequest) -> Any:
        """Some order, always: the pages of an autocomplete would overlap without one."""
        return super().get_ordering(request) or ("-pk",)

    def get_list_filter(self, request: HttpRequest) -> Any:
        return [
            (name, OwnOnly) if isinstance(name, str) and self._is_relation(name) else name
            for name in super().get_list_filter(request)
        ]

    def _is_relation(self, path: str) -> bool:
        try:
            return bool(get_fields_from_path(self.model, path)[-1].is_relation)
        except FieldDoesNotExist:
            return False

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Name what a deletion would leave without its record, instead of a missing permission."""
        deleted, counts, lacking, protected = super().get_deleted_objects(objs, request)
        return deleted, counts, set() if protected else lacking, protected

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: Any = None, **kwargs: Any
    ) -> Any:
        """Add to the form that nothing moves to another organization."""
        form = super().get_form(request, obj, change=change, **kwargs)
        if request.user.is_superuser or obj is None or not change:
            return form
        kept = {"route": self.organization.split("__"), "home": self.organization_of(obj)}
        return type(form.__name__, (StayingForm, form), kept)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        """Save, or raise ``PermissionDenied``: whatever form or list it was that came this far."""
        before = self.model._default_manager.get(pk=obj.pk) if change else obj
        stays = self.organization_of(before) == self.organization_of(obj)
        if not request.user.is_superuser and not (
            stays and self.allows(request, self.editors if change else self.adders, obj)
        ):
            raise PermissionDenied
        super().save_model(request, obj, form, change)

    # What Django logs by itself is logged with its organization.

    def log_addition(self, request: HttpRequest, obj: models.Model, message: Any) -> Any:
        return self._log(request, [obj], ADDITION, message)

    def log_change(self, request: HttpRequest, obj: models.Model, message: Any) -> Any:
        return self._log(request, [obj], CHANGE, message)

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        return self._log(request, queryset, DELETION, "")

    def _log(self, request: HttpRequest, objects: Any, flag: int, message: Any) -> Any:
        actor = cast("User", request.user)
        return staff_log.record(actor, *objects, message=message, flag=flag)


class SuperusersOnly(LargeList):
    """Pages about the whole installation."""

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.is_superuser)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_superuser)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.is_superuser)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.is_superuser)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_superuser)
