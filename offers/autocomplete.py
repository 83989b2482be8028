"""Admin's searching choices, for who types an id into the address or the form by hand."""

from typing import TYPE_CHECKING, Any

from django.contrib.admin.widgets import AutocompleteSelect, AutocompleteSelectMultiple
from django.core.exceptions import ValidationError

if TYPE_CHECKING:
    Searching = AutocompleteSelect
else:
    Searching = object


class KnownIds(Searching):
    """Shows a form again without what can't be an id; Django's own would answer with a 500."""

    def optgroups(self, name: str, value: Any, attr: Any = None) -> Any:
        try:
            return super().optgroups(name, value, attr)
        except (ValueError, ValidationError):
            return super().optgroups(name, [], attr)


class OneOf(KnownIds, AutocompleteSelect):
    pass


class SomeOf(KnownIds, AutocompleteSelectMultiple):
    pass
