"""Pages of Django's accounts and of waffle, in the back-office's look, for superusers."""

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from waffle.admin import FlagAdmin, SampleAdmin, SwitchAdmin
from waffle.models import Flag, Sample, Switch

from offers.scoped_admin import ModelAdmin

for model in (User, Group, Flag, Sample, Switch):
    admin.site.unregister(model)


class AccountForm(UserChangeForm):
    """Django's, which leaves a user name alone that is left alone.

    Who registers has their e-mail address for one (``accounts.registering``), and more characters
    are allowed in those (https://www.rfc-editor.org/rfc/rfc5322#section-3.2.3) than Django allows
    in a user name that is chosen: such an account could not be closed.
    """

    def _get_validation_exclusions(self) -> set[str]:
        excluded: set[str] = super()._get_validation_exclusions()
        return excluded if "username" in self.changed_data else excluded | {"username"}


@admin.register(User)
class AccountAdmin(UserAdmin, ModelAdmin):
    form = AccountForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm


@admin.register(Group)
class AccountGroupAdmin(GroupAdmin, ModelAdmin):
    pass


@admin.register(Flag)
class LookedAfterFlagAdmin(FlagAdmin, ModelAdmin):
    raw_id_fields = ()
    autocomplete_fields = ("users",)

    def formfield_for_dbfield(self, db_field: Any, request: Any, **kwargs: Any) -> Any:
        """Without waffle's own widget, which takes numbers and fails on anything else."""
        return ModelAdmin.formfield_for_dbfield(self, db_field, request, **kwargs)


@admin.register(Sample)
class LookedAfterSampleAdmin(SampleAdmin, ModelAdmin):
    pass


@admin.register(Switch)
class LookedAfterSwitchAdmin(SwitchAdmin, ModelAdmin):
    pass
