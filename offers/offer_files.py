"""Admin's pages that write offers into a file, and take a file with a preview."""

import uuid
from typing import TYPE_CHECKING, Any, ClassVar, cast

from django import forms
from django.contrib import messages
from django.contrib.admin.models import ADDITION, CHANGE
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.core.signing import BadSignature
from django.db import DataError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.defaultfilters import filesizeformat
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from import_export.admin import ImportExportMixin
from import_export.forms import ConfirmImportForm
from import_export.results import RowResult
from unfold.contrib.import_export.forms import ExportForm, ImportForm
from unfold.decorators import action

from offers import imported_files, staff_log
from offers.imported_files import ImportedAlready
from offers.models import Event, Offer
from offers.offer_resource import OfferSheet
from offers.scoped_admin import EDITORS, ScopedAdmin, visible_to
from offers.sheet_files import (
    LARGEST,
    CsvFile,
    Previewed,
    UnreadableFile,
    Upload,
    XlsxFile,
)

if TYPE_CHECKING:
    # import-export has no types.
    class ImportExport:
        def __getattr__(self, name: str) -> Any: ...
else:
    ImportExport = ImportExportMixin


# As import-export's forms number them.
KINDS = {"0": CsvFile, "1": XlsxFile}
LOGGED = {RowResult.IMPORT_TYPE_NEW: ADDITION, RowResult.IMPORT_TYPE_UPDATE: CHANGE}


class UploadForm(ImportForm):
    """For the preview, which fills ``shown``."""

    nonce = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.shown: dict[str, str] = {}

    def clean_import_file(self) -> Any:
        file = self.cleaned_data["import_file"]
        if file.size > LARGEST:
            raise forms.ValidationError(
                f"This file is larger than {filesizeformat(LARGEST)}: import it in parts."
            )
        return file


class ConfirmForm(ConfirmImportForm):
    """What the preview has signed; ``process_import`` reads it."""

    nonce: uuid.UUID | None = None
    shown: ClassVar[dict[str, str]] = {}


class OfferFiles(ImportExport, ScopedAdmin):
    """Mixed into the admin of offers. Whoever sees offers may export them, editors import."""

    resource_classes: ClassVar = [OfferSheet]
    formats: ClassVar = list(KINDS.values())
    import_formats = export_formats = formats
    import_form_class = UploadForm
    confirm_form_class = ConfirmForm
    export_form_class = ExportForm
    tmp_storage_class = Upload
    to_encoding = "utf-8-sig"  # Excel reads no UTF-8 without the mark

    def has_import_permission(self, request: HttpRequest) -> bool:
        return self.allows(request, EDITORS)

    def has_export_permission(self, request: HttpRequest) -> bool:
        return self.allows(request, self.viewers)

    def get_import_resource_kwargs(
        self, request: HttpRequest, *, form: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """What the caller may change, as owner or manager, and where they may make new ones."""
        return {
            "offers": visible_to(request, Offer, self.admin_site, roles=EDITORS),
            "events": visible_to(request, Event, self.admin_site, roles=EDITORS),
            "context": {"request": request, "now": timezone.now()},
            "shown": form.shown,
            "nonce": form.nonce,
        }

    def get_export_resource_kwargs(self, request: HttpRequest, **kwargs: Any) -> dict[str, Any]:
        return {}

    def get_import_data_kwargs(self, **kwargs: Any) -> dict[str, Any]:
        """All or nothing."""
        return {"rollback_on_validation_errors": True}

    def import_action(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        """Preview a file; one that says what is stored already has nothing to be confirmed."""
        page: Any = super().import_action(request, **kwargs)  # type: ignore[misc] # import-export's
        context = page.context_data
        if "confirm_form" in context and not context["result"].rows:
            messages.info(request, "Nothing to import: all that this file says is stored already.")
            del context["confirm_form"], context["result"]
            context["form"] = self.create_import_form_again(request)
        return cast("HttpResponse", page)

    def get_confirm_form_initial(self, request: HttpRequest, import_form: Any) -> dict[str, Any]:
        """The file and what the preview showed of it; how to read it is none of the browser's."""
        initial: dict[str, Any] = super().get_confirm_form_initial(  # type: ignore[misc] # import-export's
            request, import_form
        )
        if import_form is not None:
            file = import_form.cleaned_data["import_file"]
            file.seek(0)
            previewed = Previewed(
                kind=import_form.cleaned_data["format"],
                user=cast("User", request.user).pk,
                nonce=str(uuid.uuid4()),
                shown=import_form.shown,
            )
            initial["import_file_name"] = previewed.signed(file.read())
        return initial

    def add_data_read_fail_error_to_form(self, form: forms.Form, error: Exception) -> None:
        message = (
            str(error)
            if isinstance(error, UnreadableFile)
            else "This can't be read: choose a CSV file in UTF-8 or an XLSX file, and say which."
        )
        form.add_error("import_file", message)

    def process_import(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        """Import what was previewed, unless something has changed meanwhile that forbids it."""
        if not self.has_import_permission(request):
            raise PermissionDenied
        again = redirect(reverse("admin:offers_offer_import"))
        form = self.create_confirm_form(request)
        if request.method != "POST":
            return again
        if not form.is_valid():
            messages.error(request, "Nothing was imported: choose the file again.")
            return again
        try:
            previewed, file = Previewed.read(form.cleaned_data["import_file_name"])
        except BadSignature:
            messages.error(
                request, "Nothing was imported: the preview is too old. Choose the file again."
            )
            return again
        if previewed.user != cast("User", request.user).pk:
            messages.error(request, "Nothing was imported: this is somebody else's preview.")
            return again
        form.nonce, form.shown = uuid.UUID(previewed.nonce), previewed.shown
        kind: Any = KINDS[previewed.kind]
        try:
            result = self.process_dataset(kind().create_dataset(file), form, request)
        except ImportedAlready:
            messages.warning(request, "This file was imported already: nothing was done again.")
            return redirect(reverse("admin:offers_offer_changelist"))
        if not result.has_errors() and not result.has_validation_errors():
            imported_files.forget(now=timezone.now())
            return cast("HttpResponse", self.process_result(result, request))
        messages.error(request, "Nothing was imported: the offers have changed since the preview.")
        context = {
            **self.admin_site.each_context(request),
            "title": "Import",
            "opts": self.opts,
            "form": self.create_import_form_again(request),
            "result": result,
            "import_error_display": self.import_error_display,
            "fields_list": [],
        }
        return TemplateResponse(request, self.import_template_name, context)

    def create_import_form_again(self, request: HttpRequest) -> forms.Form:
        """An empty one: what was posted is the confirmation."""
        return UploadForm(self.formats, self.resource_classes)

    def generate_log_entries(self, result: Any, request: HttpRequest) -> None:
        """One entry a row that changed something, readable by the organization's members."""
        for kind, flag in LOGGED.items():
            keys = [row.object_id for row in result if row.import_type == kind]
            if keys:
                offers = Offer.objects.filter(pk__in=keys)
                actor = cast("User", request.user)
                staff_log.record(actor, *offers, message="Imported from a file.", flag=flag)

    def add_success_message(self, result: Any, request: HttpRequest) -> None:
        totals = result.totals
        messages.success(
            request,
            f"Imported: {totals[RowResult.IMPORT_TYPE_NEW]:,} new offers, "
            f"{totals[RowResult.IMPORT_TYPE_UPDATE]:,} changed, "
            f"{totals[RowResult.IMPORT_TYPE_SKIP]:,} left as they are.",
        )

    # -- Export -----------------------------------------------------------------------------------

    def export_action(self, request: HttpRequest) -> HttpResponse:
        """Answer filters that make no sense as the list does, instead of exporting everything."""
        try:
            page = super().export_action(request)  # type: ignore[misc] # import-export's
            return cast("HttpResponse", page)
        except (IncorrectLookupParameters, DataError):
            return redirect(reverse("admin:offers_offer_changelist") + "?e=1")

    @action(description="Export as CSV", permissions=["view"], icon="download")
    def export_csv(self, request: HttpRequest, queryset: QuerySet[Offer]) -> HttpResponse | None:
        return self._export(CsvFile(), request, queryset)

    @action(description="Export as XLSX", permissions=["view"], icon="download")
    def export_xlsx(self, request: HttpRequest, queryset: QuerySet[Offer]) -> HttpResponse | None:
        return self._export(XlsxFile(), request, queryset)

    def _export(
        self, kind: CsvFile | XlsxFile, request: HttpRequest, queryset: QuerySet[Offer]
    ) -> HttpResponse | None:
        try:
            return cast("HttpResponse", self._do_file_export(kind, request, queryset))
        except ValueError as error:  # which says what doesn't fit
            messages.error(request, str(error))
            return None
