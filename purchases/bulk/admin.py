"""Pages of bulk actions: the question before one, its progress, what became of each row."""

import uuid
from collections.abc import Iterator
from typing import Any, ClassVar, cast

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, JsonResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone
from unfold.decorators import display

from offers import spreadsheet
from offers.asking import question
from offers.scoped_admin import EDITORS, ScopedAdmin
from purchases.bulk import jobs, kinds
from purchases.bulk.actions import with_link
from purchases.bulk.errors import AskedForAlready
from purchases.bulk.kinds import JobForm, Kind
from purchases.bulk.models import BulkItem, BulkJob
from purchases.read_only_admin import ReadOnly

NOT_DONE = (BulkItem.State.REFUSED, BulkItem.State.FAILED)
COLUMNS = ("id", "what", "result", "reason", "tries", "settled at (UTC)")
STATES = {"running": "info", "paused": "warning", "stopped": "warning", "finished": "success"}


class ByKind(admin.SimpleListFilter):
    title = "action"
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return kinds.names()

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        return queryset.filter(kind=self.value()) if self.value() else queryset


@admin.register(BulkJob)
class BulkJobAdmin(ReadOnly, ScopedAdmin):
    """Jobs of one's organizations; one over several of them is the superusers' to see."""

    organization = "organization"
    list_display = (
        "what", "organization", "total", "done", "refused", "failed", "shown_state", "asked_by",
        "asked",
    )  # fmt: skip
    list_filter = (ByKind,)
    list_select_related = ("organization", "asked_by")
    ordering: ClassVar = ["-asked_at"]
    show_full_result_count = False

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return super().get_queryset(request).filter(started_at__isnull=False)

    @admin.display(description="action")
    def what(self, job: BulkJob) -> str:
        return kinds.title_of(job)

    @admin.display(description="asked at (UTC)", ordering="asked_at")
    def asked(self, job: BulkJob) -> str:
        return f"{job.asked_at:%Y-%m-%d %H:%M}"

    @display(description="state", label=STATES)
    def shown_state(self, job: BulkJob) -> str:
        return job.state

    def get_urls(self) -> list[Any]:
        pages = (
            ("confirm/", self.confirm_view, "confirm"),
            ("stop/", self.stop_view, "stop"),
            ("progress.json", self.progress_view, "progress"),
            ("results.csv", self.results_view, "results"),
        )
        protected = self.admin_site.admin_view
        own = [
            path(f"<uuid:job_id>/{route}", protected(view), name=f"purchases_bulkjob_{name}")
            for route, view, name in pages
        ]
        return [*own, *super().get_urls()]

    # -- Before -----------------------------------------------------------------------------------

    def confirm_view(self, request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
        """Say what will happen, ask for what is missing, and start; for whoever chose the rows."""
        job = BulkJob.objects.filter(pk=job_id, asked_by=cast("User", request.user)).first()
        if job is None:
            raise Http404
        if job.started_at is not None:  # a second click, or the browser's Back
            return redirect("admin:purchases_bulkjob_change", job.pk)
        kind = kinds.find(job.kind)
        if kind is None:
            raise Http404
        if not self.allows(request, kind.roles, job):
            raise PermissionDenied
        form = kind.form(request.POST if request.method == "POST" else None, job=job)
        if form.is_valid() and self._begin(request, job, kind, form):
            return redirect("admin:purchases_bulkjob_change", job.pk)
        opts = kind.objects().model._meta
        noun = opts.verbose_name if job.total == 1 else opts.verbose_name_plural
        return question(
            request,
            opts=opts,
            title=f"{kind.title}: {job.total:,} {noun}",
            form=form,
            button=kind.button,
            back=reverse(f"admin:{opts.app_label}_{opts.model_name}_changelist"),
            about=kind.about(kind.chosen(job)),
            template="admin/purchases/bulk/confirm.html",
            warning=kind.explanation,
        )

    def _begin(self, request: HttpRequest, job: BulkJob, kind: Kind, form: JobForm) -> bool:
        try:
            jobs.start(job, parameters=form.parameters(), now=timezone.now())
        except AskedForAlready as refusal:
            # A superuser's job over several organizations isn't theirs to see.
            is_theirs = self.get_queryset(request).filter(pk=refusal.job_id).exists()
            form.add_error(None, with_link(refusal) if is_theirs else str(refusal))
            return False
        self.log_change(request, job, f"{kind.title}: {job.total:,} chosen.")
        return True

    # -- During and after -------------------------------------------------------------------------

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """The page of one job, instead of a form that could change nothing."""
        job: BulkJob | None = self.get_object(request, object_id)
        if not self.has_view_permission(request, job) or request.method == "POST":
            raise PermissionDenied
        if job is None:
            messages.warning(request, "There is no such bulk action.")
            return redirect("admin:index")
        progress = jobs.progress(job)
        context = {
            **self.admin_site.each_context(request),
            "title": f"{kinds.title_of(job)}: {job.total:,} chosen",
            "opts": self.opts,
            "original": job,
            "job": job,
            "progress": progress,
            "label": STATES[job.state],
            "answers": list(_answers(job)),
            "kept_for": jobs.ITEMS_KEPT_FOR.days,
            "is_forgotten": progress.is_over and job.total and not job.items.exists(),
            "may_stop": not progress.is_over and self._may_stop(request, job),
            **self._not_done(request, job),
        }
        return TemplateResponse(request, "admin/purchases/bulk/job.html", context)

    def progress_view(self, request: HttpRequest, job_id: uuid.UUID) -> JsonResponse:
        """How far it is; asked by the page's script each second."""
        progress = jobs.progress(self._job(request, job_id))
        return JsonResponse(
            {
                "total": progress.total,
                "settled": progress.settled,
                "text": progress.text,
                "state": progress.state,
                "is_over": progress.is_over,
            }
        )

    def stop_view(self, request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
        job = self._job(request, job_id)
        if not self._may_stop(request, job):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if jobs.stop(job.pk, actor=cast("User", request.user), now=timezone.now()):
            self.log_change(request, job, f"{kinds.title_of(job)}: stopped.")
            messages.success(request, "Stopped: what wasn't begun is left as it is.")
        else:
            messages.info(request, "It was over already.")
        return redirect("admin:purchases_bulkjob_change", job.pk)

    def results_view(self, request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
        """What became of each, as CSV."""
        job = self._job(request, job_id)
        return spreadsheet.response(
            spreadsheet.table(COLUMNS, _results(job)), name=f"{job.kind}-{job.pk}.csv"
        )

    def _job(self, request: HttpRequest, job_id: uuid.UUID) -> BulkJob:
        job: BulkJob | None = self.get_object(request, str(job_id))
        if job is None or not self.has_view_permission(request, job):
            raise Http404
        return job

    def _may_stop(self, request: HttpRequest, job: BulkJob) -> bool:
        """Whoever may start such a job in the organization."""
        kind = kinds.find(job.kind)
        return self.allows(request, kind.roles if kind else EDITORS, job)

    def _not_done(self, request: HttpRequest, job: BulkJob) -> dict[str, Any]:
        """One page of those that were not done, each with its link."""
        items = job.items.filter(state__in=NOT_DONE).order_by("state", "pk")
        found = Paginator(items, 50).get_page(request.GET.get("page"))
        return {"found": found, "rows": list(_linked(kinds.find(job.kind), list(found)))}


def _linked(kind: Kind | None, items: list[BulkItem]) -> Iterator[dict[str, Any]]:
    if kind is None:
        yield from ({"item": item, "link": "", "name": item.object_id} for item in items)
        return
    named = kind.names(kind.objects().filter(pk__in=[item.object_id for item in items]))
    opts = kind.objects().model._meta
    for item in items:
        link = reverse(f"admin:{opts.app_label}_{opts.model_name}_change", args=[item.object_id])
        yield {"item": item, "link": link, "name": named.get(item.object_id, "It is no more")}


def _results(job: BulkJob) -> Iterator[tuple[object, ...]]:
    kind = kinds.find(job.kind)
    named = kind.names(kind.chosen(job)) if kind else {}
    for item in job.items.order_by("pk"):
        yield (
            item.object_id,
            named.get(item.object_id, ""),
            item.get_state_display(),
            item.reason,
            item.attempts,
            item.settled_at.strftime("%Y-%m-%d %H:%M:%S") if item.settled_at else "",
        )


def _answers(job: BulkJob) -> Iterator[tuple[str, str]]:
    """What was asked before it began, and answered."""
    kind = kinds.find(job.kind)
    fields = kind.form.base_fields if kind else {}
    for name, value in job.parameters.items():
        if name in fields and value not in (None, ""):
            shown = ("yes" if value else "no") if isinstance(value, bool) else str(value)
            yield str(fields[name].label or name.capitalize()), shown
