"""Forms that are open for a while: they write what was changed on them, and nothing else."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, cast
from urllib.parse import parse_qsl, urlencode

from django import forms
from django.db import models
from django.utils.functional import cached_property
from django.utils.safestring import SafeString

from offers.careful_pages import Rows

# Of a set of rows: the field that carries what they showed.
SHOWN = "SHOWN"


class AsShown(forms.BoundField):
    """A field that sends along what it showed; through a refusal, too, where Django loses a day."""

    def as_hidden(
        self,
        attrs: Any = None,
        only_initial: bool = False,  # noqa: FBT001, FBT002 - Django's signature
        **kwargs: Any,
    ) -> Any:
        if not only_initial:
            return super().as_hidden(attrs, **kwargs)
        form = cast("MeanwhileForm", self.form)
        if form.is_carried_by_its_rows:
            return SafeString()
        return self.field.hidden_widget().render(
            self.html_initial_name,
            form.shown(self.name),
            {**(attrs or {}), "id": self.html_initial_id},
        )


class MeanwhileForm(forms.ModelForm):
    """The base of an admin's form for what others, or the system, may change while it is open.

    Django compares what was sent with the row as it is by then, so that what nobody touched looks
    changed and is written back. Here the page carries what each field showed. A field that was not
    touched keeps what is stored; one that was, and is another by now, is refused with what it
    became, once: who saves again has read it. A page that carries nothing (of a script's, say) is
    compared as Django does. Not for fields that take files.
    """

    bound_field_class = AsShown
    is_carried_by_its_rows = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Without what a set of forms adds later: the key, the object around it, the deletion.
        self._compared = () if self.instance._state.adding else tuple(self.fields)
        self._became: dict[str, Any] = {}
        self._knows = not self.is_bound or any(map(self._was_sent, self._compared))
        for name in self._compared:
            self.fields[name].show_hidden_initial = self._knows

    def _was_sent(self, name: str) -> bool:
        widget: Any = self.fields[name].hidden_widget()
        return not widget.value_omitted_from_data(
            self.data, self.files, self.add_initial_prefix(name)
        )

    def shown(self, name: str) -> Any:
        """What the page showed of a field, as it is to be sent along."""
        bound = self[name]
        if name in self._became:
            return self._became[name]
        if not self.is_bound:
            return bound.field.prepare_value(bound.initial)
        widget: Any = bound.field.hidden_widget()
        return widget.value_from_datadict(self.data, self.files, bound.html_initial_name)

    def carried(self) -> Iterator[tuple[str, str]]:
        """The names and values of what the page sends along of the fields."""
        for name in self._compared if self._knows else ():
            widget: Any = self.fields[name].hidden_widget()
            whole = widget.get_context(self[name].html_initial_name, self.shown(name), None)
            for part in whole["widget"].get("subwidgets", [whole["widget"]]):
                yield part["name"], part["value"] or ""

    def read_again(self) -> models.Model | None:
        """The row as it is now; locked until admin's transaction ends, if it is to be written."""
        rows: models.QuerySet = type(self.instance)._base_manager.filter(pk=self.instance.pk)
        return (rows.select_for_update(no_key=True) if self.changed_data else rows).first()

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        if not self._compared:
            return data
        stored = self.read_again()
        if stored is None:
            raise forms.ValidationError("This was deleted meanwhile.")
        for name in set(self._compared) & set(data):
            if name not in self.changed_data:
                data[name] = getattr(stored, name)
        changed = [name for name in self._compared if name in self.changed_data]
        if changed and self._knows:
            self._refuse_what_became_another(changed, type(self)(instance=stored))
        return data

    def _refuse_what_became_another(self, changed: list[str], now: "MeanwhileForm") -> None:
        for name in changed:
            became = now[name]
            if became.field.has_changed(_plain(became.initial), _plain(self.shown(name))):
                self._became[name] = now.shown(name)
                self.add_error(
                    name,
                    f"Meanwhile this became: {said(became)}. If you save again, what you see here "
                    "is what counts.",
                )


class RowsMeanwhile(Rows):
    """The rows of an inline whose form is a ``MeanwhileForm``.

    What all of them showed is sent along as one field, since Django takes at most 1,000 of a page.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.is_bound:
            self.data: Any = self.data.copy()
            sent = self.data.get(self.management_form.add_prefix(SHOWN), "")
            for name, value in parse_qsl(sent, keep_blank_values=True):
                if name.startswith(f"initial-{self.prefix}-"):
                    self.data.appendlist(name, value)

    @cached_property
    def management_form(self) -> Any:
        form: Any = super().management_form
        form.fields[SHOWN] = WhatRowsShow(self)
        return form

    def add_fields(self, form: Any, index: Any) -> None:
        super().add_fields(form, index)
        form.is_carried_by_its_rows = True


class WhatRowsShow(forms.CharField):
    """Is read when the page is made, after a refusal, too."""

    widget = forms.HiddenInput

    def __init__(self, rows: RowsMeanwhile) -> None:
        super().__init__(required=False)
        self.rows = rows

    def prepare_value(self, value: Any) -> str:
        forms_of_rows: Any = self.rows.initial_forms
        return urlencode([pair for form in forms_of_rows for pair in form.carried()])


def _plain(value: Any) -> Any:
    """A text as it is whatever a browser makes of its lines."""
    return "\n".join(value.splitlines()).strip() if isinstance(value, str) else value


def said(bound: forms.BoundField) -> str:
    """What a field shows, in words."""
    value = bound.value()
    if isinstance(bound.field, forms.ModelMultipleChoiceField):
        return ", ".join(str(each) for each in value or ()) or "nothing"
    if isinstance(bound.field, forms.ModelChoiceField):
        choices: Any = bound.field.queryset
        found = choices.filter(pk=value).first() if value else None
        return str(found or "nothing")
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "nothing"
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    return str(value) if value not in (None, "") else "nothing"
