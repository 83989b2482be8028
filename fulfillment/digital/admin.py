"""Where organizers put content: on the offer's page, and two pages beside it for file and codes.

The file has a page of its own because it is stored outside any transaction, which the offer's page
is one of, with the offer locked.
"""

import uuid
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import models, transaction
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.defaultfilters import date, filesizeformat
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminURLInputWidget

from fulfillment import delivery
from fulfillment.digital import codes, content
from fulfillment.digital.errors import CodesRefused, ContentNotStored
from fulfillment.digital.models import AccessCode, DigitalContent
from offers import spreadsheet
from offers.asking import AskingForm, question
from offers.meanwhile import MeanwhileForm
from offers.models import Offer
from offers.scoped_admin import EDITORS, ScopedAdmin, ScopedInline

# 100,000 codes of 200 characters, and something beside each.
LARGEST_IMPORT = 30 * 1024 * 1024


# -- On the offer's page --------------------------------------------------------------------------


class ContentForm(MeanwhileForm):
    WRITTEN: ClassVar = ["url", "gives_access_codes", "instructions"]

    def clean(self) -> dict[str, Any]:
        data = super().clean()
        if data.get("url") and self.instance.file:
            self.add_error("url", "Buyers download a file: remove that first.")
        return data

    def save(self, commit: bool = True) -> Any:  # noqa: FBT001, FBT002 - Django's own
        """Write what the form has, and not the file, which may be another one by now."""
        if not commit or self.instance._state.adding:
            return super().save(commit=commit)
        self.instance.save(update_fields=self.WRITTEN)
        return self.instance


class ContentInline(ScopedInline):
    model = DigitalContent
    form = ContentForm
    template = "admin/edit_inline/stacked.html"
    verbose_name = verbose_name_plural = "what buyers get"
    extra = max_num = 1
    can_delete = False
    readonly_fields = ("file_now", "codes_now")
    fields = ("file_now", "url", "gives_access_codes", "codes_now", "instructions")
    formfield_overrides: ClassVar = {
        models.URLField: {"assume_scheme": "https", "widget": UnfoldAdminURLInputWidget},
        models.TextField: {"widget": UnfoldAdminTextareaWidget(attrs={"rows": 4})},
    }

    @admin.display(description="File")
    def file_now(self, row: DigitalContent) -> str:
        if not row.offer_id:  # the form that Django's script would copy for more rows
            return "-"
        shown = "none"
        if row.file:
            shown = f"{row.file_name}, uploaded on {date(row.uploaded_at, 'j F Y, H:i')} UTC"
        where = reverse("admin:offers_offer_content_file", args=[row.offer_id])
        what = "Replace or remove it" if row.file else "Upload a file"
        return format_html('{} · <a href="{}">{}</a>', shown, where, what)

    @admin.display(description="Access codes")
    def codes_now(self, row: DigitalContent) -> str:
        if not row.offer_id:
            return "-"
        counted = vars(row).get("counted")
        if counted is None:  # the template asks for it again and again
            counted = vars(row)["counted"] = codes.counted(row.offer_id)
        return format_html(
            '{} free, {} given, {} revoked · <a href="{}">Import access codes</a>',
            *counted.values(),
            reverse("admin:offers_offer_access_codes", args=[row.offer_id]),
        )


# -- The two pages beside it ----------------------------------------------------------------------


class FileForm(AskingForm):
    """One of the two is chosen."""

    file = forms.FileField(
        required=False,
        max_length=1000,
        help_text="Of any kind. It is kept where only buyers get at it.",
    )
    remove = forms.BooleanField(required=False, label="Remove the file that is there")

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if not self.errors and bool(data.get("file")) == bool(data.get("remove")):
            raise forms.ValidationError("Choose a file, or tick that it is to be removed.")
        return data


class CodesForm(AskingForm):
    """Codes as a file or pasted; what was read is in ``cleaned_data["found"]``."""

    file = forms.FileField(
        required=False,
        help_text="CSV in UTF-8, separated by commas; the first column counts. A first line that "
        "says “code” is left out.",
    )
    codes = forms.CharField(
        required=False,
        strip=False,
        label="Or paste them",
        widget=forms.Textarea(attrs={"rows": 10}),
        help_text="One a line.",
    )

    def clean_file(self) -> Any:
        file = self.cleaned_data["file"]
        if file and file.size > LARGEST_IMPORT:
            raise forms.ValidationError(
                f"This file is larger than {filesizeformat(LARGEST_IMPORT)}: import it in parts."
            )
        return file

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if self.errors:
            return data
        file, pasted = data.get("file"), data.get("codes")
        if bool(file) == bool(pasted):
            raise forms.ValidationError("Choose a file or paste the codes: one of the two.")
        try:
            data["found"] = codes.read(file.read() if file else pasted or "")
        except CodesRefused as refused:
            self.add_error("file" if file else "codes", refused.problems)
        return data


class ContentPages(ScopedAdmin):
    """Mixed into the admin of offers: the pages of content, for offers that have some."""

    def get_urls(self) -> list[Any]:
        pages = (
            ("content-file/", self.content_file_view, "content_file"),
            ("access-codes/", self.access_codes_view, "access_codes"),
            ("access-codes/given.csv", self.given_codes_view, "given_codes"),
        )
        protected = self.admin_site.admin_view
        own = [
            path(f"<uuid:offer_id>/{route}", protected(view), name=f"offers_offer_{name}")
            for route, view, name in pages
        ]
        return [*own, *super().get_urls()]

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: Any) -> None:
        """Save; what buyers wait for may be there now."""
        super().save_formset(request, form, formset, change)
        if formset.model is DigitalContent and formset.has_changed():
            offer_id = form.instance.pk
            # After the commit, because it locks fulfilments, whose workers wait for the content.
            transaction.on_commit(lambda: _serve_who_waits(offer_id))

    def content_file_view(self, request: HttpRequest, offer_id: uuid.UUID) -> HttpResponse:
        """Upload the file, or remove it."""
        offer = self._offer(request, offer_id)
        if not self.has_change_permission(request, offer):
            raise PermissionDenied
        form = FileForm(*_sent(request))
        if form.is_valid() and self._put_file(request, offer, form):
            return redirect(reverse("admin:offers_offer_change", args=[offer.pk]))
        return self._page(
            request, offer, form, "content_file", title="File to download", button="Save",
            content=DigitalContent.objects.filter(offer=offer).first(),
        )  # fmt: skip

    def _put_file(self, request: HttpRequest, offer: Offer, form: FileForm) -> bool:
        upload = form.cleaned_data["file"]
        if not upload:
            content.remove_file(offer.pk)
            self.log_change(request, offer, "Removed the file.")
            messages.success(request, "The file was removed.")
            return True
        try:
            stored = content.put_file(offer.pk, upload, now=timezone.now())
        except ContentNotStored as error:
            form.add_error(error.attr, str(error))
            return False
        waiting = _serve_who_waits(offer.pk)
        self.log_change(request, offer, f"Uploaded the file {stored.file_name}.")
        messages.success(request, f"Buyers download {stored.file_name} now.{_said_of(waiting)}")
        return True

    def access_codes_view(self, request: HttpRequest, offer_id: uuid.UUID) -> HttpResponse:
        """Import codes into the pool, all or none."""
        offer = self._offer(request, offer_id)
        if not self.has_change_permission(request, offer):
            raise PermissionDenied
        form = CodesForm(*_sent(request))
        if form.is_valid() and self._take_codes(request, offer, form):
            return redirect(reverse("admin:offers_offer_access_codes", args=[offer.pk]))
        return self._page(
            request, offer, form, "import_codes", title="Import access codes", button="Import",
            counted=codes.counted(offer.pk),
        )  # fmt: skip

    def _take_codes(self, request: HttpRequest, offer: Offer, form: CodesForm) -> bool:
        found = form.cleaned_data["found"]
        try:
            taken = codes.take_in(offer.pk, found)
        except CodesRefused as refused:
            form.add_error("file" if form.cleaned_data["file"] else "codes", refused.problems)
            return False
        waiting = _serve_who_waits(offer.pk)
        self.log_change(request, offer, f"Imported {taken} access codes.")
        messages.success(
            request,
            f"{taken:,} codes imported, from “{found[0][1]}” to “{found[-1][1]}”."
            f"{_said_of(waiting)}",
        )
        return True

    def given_codes_view(self, request: HttpRequest, offer_id: uuid.UUID) -> HttpResponse:
        """The codes that were given, as CSV."""
        offer = self._offer(request, offer_id)
        if not self.has_view_permission(request, offer):
            raise PermissionDenied
        return spreadsheet.response(codes.given_as_csv(offer.pk), name="given-codes.csv")

    def _offer(self, request: HttpRequest, offer_id: uuid.UUID) -> Offer:
        """The offer, if the caller may see it and it is one with content."""
        offer = self.get_queryset(request).filter(
            pk=offer_id, offer_type=Offer.Type.EXCLUSIVE_CONTENT
        )
        found: Offer | None = offer.first()
        if found is None:
            raise Http404
        return found

    def _page(
        self,
        request: HttpRequest,
        offer: Offer,
        form: forms.Form,
        template: str,
        **more: Any,
    ) -> HttpResponse:
        return question(
            request,
            opts=self.opts,
            form=form,
            back=reverse("admin:offers_offer_change", args=[offer.pk]),
            original=offer,
            template=f"admin/fulfillment/digital/{template}.html",
            **more,
        )


def _sent(request: HttpRequest) -> tuple[Any, Any]:
    return (request.POST, request.FILES) if request.method == "POST" else (None, None)


def _serve_who_waits(offer_id: uuid.UUID) -> int:
    return delivery.retry_offer(offer_id, now=timezone.now())


def _said_of(waiting: int) -> str:
    return f" {waiting:,} who waited for it get it now." if waiting else ""


# -- The pool -------------------------------------------------------------------------------------


class StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        return codes.State.choices

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        found = codes.FOUND.get(self.value() or "")
        return queryset if found is None else queryset.filter(found)


@admin.register(AccessCode)
class AccessCodeAdmin(ScopedAdmin):
    """To look at, and to delete what nobody has seen yet."""

    organization = "offer__event__organization"
    deleters = EDITORS
    list_display = ("code", "offer", "state", "given_at", "buyer")
    list_filter = (StateFilter, "offer")
    list_select_related = ("offer__event", "fulfillment__purchase__user")
    search_fields = ("=code", "offer__title", "=fulfillment__purchase__user__username")
    fields = ("code", "offer", "state", "given_at", "buyer", "fulfillment")
    show_full_result_count = False
    ordering: ClassVar = ["-pk"]

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return codes.with_state(super().get_queryset(request))

    @display(ordering="state", label={"free": "success", "given": "info", "revoked": "danger"})
    def state(self, code: Any) -> str:
        return codes.State(code.state).label

    @admin.display(ordering="fulfillment__purchase__user__username")
    def buyer(self, code: AccessCode) -> str:
        return str(code.fulfillment.purchase.user) if code.fulfillment else "-"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        if obj is not None and obj.fulfillment_id is not None:
            return False
        return super().has_delete_permission(request, obj)

    def delete_model(self, request: HttpRequest, obj: AccessCode) -> None:
        """Delete it, unless a worker has given it away since the page was opened."""
        if not codes.delete_free(obj.offer_id, [obj.pk]):
            raise PermissionDenied

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet) -> None:
        chosen: dict[uuid.UUID, list[int]] = {}
        for pk, offer_id in queryset.values_list("pk", "offer_id"):
            chosen.setdefault(offer_id, []).append(pk)
        for offer_id, pks in chosen.items():
            codes.delete_free(offer_id, pks)
