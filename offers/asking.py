"""Admin's pages that ask before something is done: what it is about, a form, two buttons."""

from collections.abc import Iterable
from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import Model
from django.db.models.options import Options
from django.http import HttpRequest
from django.template.response import TemplateResponse
from unfold import widgets


class AskingForm(forms.Form):
    """A form of admin outside a model's own page, with the widgets that the other pages have.

    A field that was given a widget other than Django's default keeps it.
    """

    LOOKS: ClassVar[dict[type[forms.Widget], type[forms.Widget]]] = {
        forms.TextInput: widgets.UnfoldAdminTextInputWidget,
        forms.Textarea: widgets.UnfoldAdminTextareaWidget,
        forms.NumberInput: widgets.UnfoldAdminIntegerFieldWidget,
        forms.EmailInput: widgets.UnfoldAdminEmailInputWidget,
        forms.URLInput: widgets.UnfoldAdminURLInputWidget,
        forms.Select: widgets.UnfoldAdminSelectWidget,
        forms.SelectMultiple: widgets.UnfoldAdminSelectMultipleWidget,
        forms.RadioSelect: widgets.UnfoldAdminRadioSelectWidget,
        forms.CheckboxInput: widgets.UnfoldBooleanWidget,
        forms.ClearableFileInput: widgets.UnfoldAdminFileFieldWidget,
        forms.DateInput: widgets.UnfoldAdminSingleDateWidget,
        forms.TimeInput: widgets.UnfoldAdminSingleTimeWidget,
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for field in self.fields.values():
            plain = field.widget
            look = self.LOOKS.get(type(plain))
            if look is None:
                continue
            field.widget = look(attrs=plain.attrs)
            field.widget.is_required = plain.is_required
            if isinstance(plain, forms.Select | forms.RadioSelect):
                field.widget.choices = plain.choices


def question(
    request: HttpRequest,
    *,
    opts: "Options[Any]",
    title: str,
    form: forms.Form,
    button: str,
    back: str,
    explanation: str = "",
    about: Iterable[object] = (),
    original: Model | None = None,
    chosen: Iterable[object] = (),
    template: str = "admin/ask.html",
    status: int = 200,
    **more: Any,
) -> TemplateResponse:
    """The page that asks; ``back`` is where the second button, which changes nothing, leads.

    ``about`` are lines on what it is about. For an action on chosen rows ``chosen`` are their keys,
    which are sent again together with the action's name. ``template`` extends ``admin/ask.html``
    where a page has more to show.
    """
    hidden = [(ACTION_CHECKBOX_NAME, key) for key in chosen]
    if hidden:
        hidden.append(("action", request.POST["action"]))
    context = {
        **admin.site.each_context(request),
        "title": title,
        "opts": opts,
        "original": original,
        "form": form,
        "media": form.media,
        "button": button,
        "back": back,
        "explanation": explanation,
        "about": list(about),
        "hidden": hidden,
        **more,
    }
    return TemplateResponse(request, template, context, status=status)
