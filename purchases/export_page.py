"""The page of admin that asks for a file's format, and sends it: what the filtered list shows."""

from typing import Any, ClassVar

import structlog
from django import forms
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import (
    FileResponse,
    HttpRequest,
    HttpResponse,
    HttpResponseRedirect,
    StreamingHttpResponse,
)
from django.http.response import HttpResponseBase
from django.urls import path, reverse
from django.utils import timezone

from offers.asking import AskingForm, question
from offers.large_lists import MoreThan, counted
from offers.scoped_admin import ScopedAdmin
from purchases import spreadsheets
from purchases.models import Purchase

logger = structlog.get_logger("purchases")

XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
CSV = "text/csv; charset=utf-8"


class FormatForm(AskingForm):
    """Which kind of file; one that would be too long isn't accepted."""

    file = forms.ChoiceField(
        label="File",
        choices=[("csv", "CSV"), ("xlsx", "XLSX (Excel)")],
        initial="csv",
        widget=forms.RadioSelect,
    )

    def __init__(self, *args: Any, count: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.count = count

    def clean_file(self) -> str:
        chosen: str = self.cleaned_data["file"]
        if chosen == "xlsx" and isinstance(self.count, MoreThan):
            raise forms.ValidationError(
                f"An XLSX file holds at most {spreadsheets.XLSX_ROWS:,} purchases, and these are "
                f"{self.count:,}: narrow the list by its filters, or take CSV, which has no bound."
            )
        return chosen


class PurchaseExport(ScopedAdmin):
    """Mixed into the admin of purchases; ``export_columns`` are what the file has."""

    export_columns: ClassVar[spreadsheets.Columns] = spreadsheets.COLUMNS

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.export_view)
        return [path("export/", view, name="purchases_purchase_export"), *super().get_urls()]

    def export_view(self, request: HttpRequest) -> HttpResponseBase:
        """Ask (GET), and send (POST) what the list with the same query string shows."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        back = reverse("admin:purchases_purchase_changelist")
        try:
            changelist = self.get_changelist_instance(request)
        except IncorrectLookupParameters:
            return HttpResponseRedirect(back)
        chosen = changelist.queryset
        # The list itself counts no further than its pages go, which is less than a file may hold.
        count = counted(chosen, most=spreadsheets.XLSX_ROWS)
        form = FormatForm(request.POST if request.method == "POST" else None, count=count)
        if form.is_valid():
            return self._file(request, chosen, form.cleaned_data["file"], count)
        return question(
            request,
            opts=self.opts,
            title="Export purchases",
            about=[f"{count:,} {'purchase' if count == 1 else 'purchases'}, as the list has them."],
            explanation="The file names people: keep it as you would their e-mails.",
            form=form,
            button="Export",
            back=f"{back}?{request.GET.urlencode()}",
        )

    def _file(
        self, request: HttpRequest, purchases: QuerySet[Purchase], kind: str, count: int
    ) -> HttpResponse | StreamingHttpResponse:
        logger.info("export of purchases", user_id=request.user.pk, rows=str(count), file=kind)
        name = f"purchases-{timezone.now():%Y-%m-%d}.{kind}"
        header = list(self.export_columns)
        answer: StreamingHttpResponse
        if kind == "xlsx":
            # Not bounded again: what was sold since it was counted belongs to it, and is little.
            file = spreadsheets.xlsx_file(header, spreadsheets.rows(purchases, self.export_columns))
            answer = FileResponse(file, as_attachment=True, filename=name, content_type=XLSX)
        else:
            rows = spreadsheets.rows(purchases, self.export_columns)
            answer = StreamingHttpResponse(
                spreadsheets.csv_lines(header, rows),
                content_type=CSV,
                headers={"Content-Disposition": f'attachment; filename="{name}"'},
            )
        answer["Cache-Control"] = "private, no-store"
        return answer
