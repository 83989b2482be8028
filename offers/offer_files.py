"""Admin's pages that write offers into a file, and take a file with a preview."""

from typing import TYPE_CHECKING, Any, ClassVar, cast

from django import forms
from django.contrib import messages
from django.contrib.admin.models import ADDITION, CHANGE
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.core.signing import BadSignature
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.defaultfilters import filesizeformat
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from import_export.admin import ImportExportMixin
from import_export.results import RowResult
from unfold.contrib.import_export.forms import ExportForm, ImportForm
from unfold.decorators import action

from offers import staff_log
from offers.models import Event, Offer
from offers.offer_resource import OfferSheet
from offers.scoped_admin import EDITORS, ScopedAdmin, visible_to
from offers.sheet_files import LARGEST, CsvFile, SignedUpload, UnreadableFile, XlsxFile

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
    def clean_import_file(self) -> Any:
        file = self.cleaned_data["import_file"]
        if file.size > LARGEST:
            raise forms.ValidationError(
                f"This file is larger than {filesizeformat(LARGEST)}: import it in parts."
            )
        return file


class OfferFiles(ImportExport, ScopedAdmin):
    """Mixed into the admin of offers. Whoever sees offers may export them, editors import."""

    resource_classes: ClassVar = [OfferSheet]
    formats: ClassVar = list(KINDS.values())
    import_formats = export_formats = formats
    import_form_class = UploadForm
    export_form_class = ExportForm
    tmp_storage_class = SignedUpload
    to_encoding = "utf-8-sig"  # Excel reads no UTF-8 without the mark

    def has_import_permission(self, request: HttpRequest) -> bool:
        return self.allows(request, EDITORS)

    def has_export_permission(self, request: HttpRequest) -> bool:
        return self.allows(request, self.viewers)

    def get_import_resource_kwargs(self, request: HttpRequest, **kwargs: Any) -> dict[str, Any]:
        """What the caller may change, as owner or manager, and where they may make new ones."""
        return {
            "offers": visible_to(request, Offer, self.admin_site, roles=EDITORS),
            "events": visible_to(request, Event, self.admin_site, roles=EDITORS),
            "context": {"request": request, "now": timezone.now()},
        }

    def get_export_resource_kwargs(self, request: HttpRequest, **kwargs: Any) -> dict[str, Any]:
        return {}

    def get_import_data_kwargs(self, **kwargs: Any) -> dict[str, Any]:
        """All or nothing."""
        return {"rollback_on_validation_errors": True}

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
        kind: Any = KINDS.get(form.data.get("format", ""))
        if kind is None or not form.is_valid():
            messages.error(request, "Nothing was imported: choose the file again.")
            return again
        upload = SignedUpload(name=form.cleaned_data["import_file_name"])
        try:
            table = kind().create_dataset(upload.read())
        except BadSignature:
            messages.error(
                request, "Nothing was imported: the preview is too old. Choose the file again."
            )
            return again
        result = self.process_dataset(table, form, request)
        if not result.has_errors() and not result.has_validation_errors():
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

    # -- Of those that are chosen -----------------------------------------------------------------

    @action(description="Export as CSV", permissions=["view"], icon="download")
    def export_csv(self, request: HttpRequest, queryset: QuerySet[Offer]) -> HttpResponse:
        return cast("HttpResponse", self._do_file_export(CsvFile(), request, queryset))

    @action(description="Export as XLSX", permissions=["view"], icon="download")
    def export_xlsx(self, request: HttpRequest, queryset: QuerySet[Offer]) -> HttpResponse:
        return cast("HttpResponse", self._do_file_export(XlsxFile(), request, queryset))
