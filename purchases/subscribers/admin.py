"""Where organizations enter their endpoints and see what became of each event."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, cast
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import redirect
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html
from unfold.decorators import display
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget, UnfoldAdminURLInputWidget

from offers import staff_log
from offers.errors import DomainError
from offers.meanwhile import MeanwhileForm
from offers.scoped_admin import EDITORS, ScopedAdmin
from offers.turns import let_others
from purchases.read_only_admin import ReadOnly
from purchases.subscribers import addresses, deliveries, endpoints, publishing
from purchases.subscribers.models import WebhookDelivery, WebhookEndpoint


class EndpointForm(MeanwhileForm):
    url = forms.URLField(
        label="URL",
        max_length=2000,
        assume_scheme="https",
        widget=UnfoldAdminURLInputWidget,
        help_text="A public https:// address. What it gets and must answer: docs/webhooks.md.",
    )
    event_types = forms.MultipleChoiceField(
        choices=list(publishing.TYPES.items()),
        required=False,
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
        help_text="None chosen: all of them, those to come included.",
    )

    # What was found out about the address before the transaction began.
    refusal: ClassVar[str | None] = None

    @classmethod
    def refusal_of(cls, url: str) -> str | None:
        """Why ``url``, as it was typed, can't be called; ``None`` also if it is no address."""
        try:
            address = cls.base_fields["url"].clean(url)
            with let_others():  # a name server may take its time
                addresses.check(address)
        except ValidationError:
            return None  # which the form says by itself
        except DomainError as error:
            return str(error)
        return None

    def clean_url(self) -> str:
        if self.refusal and "url" in self.changed_data:
            raise ValidationError(self.refusal)
        return str(self.cleaned_data["url"])

    def clean(self) -> dict[str, Any]:
        data = super().clean()
        organization = data.get("organization")
        if self.instance._state.adding and organization is not None:
            others = WebhookEndpoint.objects.filter(organization=organization).count()
            if others >= endpoints.MOST:
                self.add_error(
                    None, f"An organization has at most {endpoints.MOST} endpoints: change one."
                )
        return data


def each(request: HttpRequest, chosen: QuerySet, done: str, do: Callable[[UUID], None]) -> None:
    """Do something with each of the chosen, and say how many it was done with and what failed."""
    done_to = []
    for thing in chosen:
        try:
            do(thing.pk)
        except DomainError as error:
            messages.error(request, f"{thing}: {error}")
        else:
            done_to.append(thing)
    staff_log.record(cast("User", request.user), *done_to, message=done.partition(":")[0] + ".")
    if done_to:
        messages.success(request, done.format(len(done_to)))


@admin.register(WebhookEndpoint)
class WebhookEndpointAdmin(ScopedAdmin):
    """Its secret is for those who run the receiving side: support sees none of it."""

    organization = "organization"
    viewers = EDITORS
    form = EndpointForm
    list_display = ("__str__", "organization", "url", "state", "failing_since", "disabled_reason")
    list_filter = ("is_active",)
    search_fields = ("description", "url")
    list_select_related = ("organization",)
    ordering = ("-created_at",)
    autocomplete_fields = ("organization",)
    readonly_fields = (
        "secret", "previous_secret_until", "disabled_reason", "failing_since", "created_at", "log",
    )  # fmt: skip
    actions = ("send_test", "rotate_secret")

    def get_fields(self, request: HttpRequest, obj: WebhookEndpoint | None = None) -> Any:
        """Before it is stored an endpoint has no secret, but a default that nobody will know."""
        return WebhookEndpoint.EDITABLE + (() if obj is None else self.readonly_fields)

    @display(
        ordering="is_active",
        label={"active": "success", "failing": "warning", "not active": "danger"},
    )
    def state(self, endpoint: WebhookEndpoint) -> str:
        if not endpoint.is_active:
            return "not active"
        return "failing" if endpoint.failing_since else "active"

    @admin.display(description="deliveries")
    def log(self, endpoint: WebhookEndpoint) -> str:
        url = reverse("admin:purchases_webhookdelivery_changelist")
        return format_html(
            '<a href="{}?endpoint__id__exact={}">What became of each event</a>', url, endpoint.pk
        )

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Look the address up now: within Django's view, a transaction would wait for it."""
        if request.method == "POST" and self.allows(request, self.editors):
            refusal = EndpointForm.refusal_of(request.POST.get("url", ""))
            # Ours on Django's request, which has no place for it: hence the silenced check.
            request._refusal = refusal  # type: ignore[attr-defined]  # ours
        return super().changeform_view(request, *args, **kwargs)

    def get_form(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        form = super().get_form(request, *args, **kwargs)
        return type(form.__name__, (form,), {"refusal": getattr(request, "_refusal", None)})

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        """Save what was changed: nobody has locked what was not."""
        if change and not form.changed_data:
            return
        super().save_model(request, obj, form, change)
        if change and obj.is_active and {"is_active", "url"} & set(form.changed_data):
            endpoints.begin_anew(obj.pk, now=timezone.now())

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Made inactive, never deleted: its log is a record, and an event may be on its way."""
        return False

    @admin.action(description="Send a test event", permissions=["change"])
    def send_test(self, request: HttpRequest, queryset: QuerySet) -> None:
        own = self.within(request, queryset, self.editors)
        done = "Test events on their way: {}. What became of them is among the deliveries."
        each(request, own, done, partial(publishing.ping, now=timezone.now()))

    @admin.action(description="Replace the secret", permissions=["change"])
    def rotate_secret(self, request: HttpRequest, queryset: QuerySet) -> None:
        own = self.within(request, queryset, self.editors)
        done = "Secrets replaced: {}. For 24 hours events are signed with the old one, too."
        each(request, own, done, partial(endpoints.rotate_secret, now=timezone.now()))


class ByType(admin.SimpleListFilter):
    """The events there are; Django's own filter would look for those in the whole log."""

    title = "type"
    parameter_name = "type"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in (*publishing.TYPES, publishing.TEST)]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        return queryset.filter(type=self.value()) if self.value() else queryset


@admin.register(WebhookDelivery)
class WebhookDeliveryAdmin(ReadOnly, ScopedAdmin):
    organization = "endpoint__organization"
    change_form_outer_before_template = "admin/purchases/webhookdelivery/tools.html"
    list_display = (
        "created_at", "type", "endpoint", "state_label", "attempts", "response_status", "due_at",
        "why_not",
    )  # fmt: skip
    list_filter = ("state", ByType, "endpoint")
    list_select_related = ("endpoint",)
    ordering = ("-created_at",)
    search_fields = ("=message_id", "=key")
    fields = (
        "message_id", "endpoint", "type", "key", "state_label", "attempts", "due_at",
        "last_attempt_at", "duration_ms", "response_status", "response_body", "error",
        "delivered_at", "created_at", "content",
    )  # fmt: skip
    readonly_fields = ("state_label", "content")
    show_full_result_count = False
    actions = ("resend",)

    @display(
        description="state",
        ordering="state",
        label={"Waiting": "info", "Delivered": "success", "Given Up": "danger"},
    )
    def state_label(self, delivery: WebhookDelivery) -> str:
        return WebhookDelivery.State(delivery.state).label

    @admin.display(description="error")
    def why_not(self, delivery: WebhookDelivery) -> str:
        return format_html('<span class="bo-clip" title="{0}">{0}</span>', delivery.error or "-")

    @admin.display(description="payload")
    def content(self, delivery: WebhookDelivery) -> str:
        text = json.dumps(delivery.payload, indent=2, ensure_ascii=False)
        return format_html('<pre class="bo-box" tabindex="0">{}</pre>', text)

    def has_resend_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.allows(request, EDITORS, obj)

    @admin.action(description="Resend", permissions=["resend"])
    def resend(self, request: HttpRequest, queryset: QuerySet) -> None:
        own = self.within(request, queryset, EDITORS)
        done = "On their way again: {}."
        each(request, own, done, partial(deliveries.resend, now=timezone.now()))

    def get_urls(self) -> list[Any]:
        resend = self.admin_site.admin_view(self.resend_view)
        own = path("<path:object_id>/resend/", resend, name="purchases_webhookdelivery_resend")
        return [own, *super().get_urls()]

    def resend_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """What the button on the page of one delivery leads to."""
        delivery = self.get_object(request, object_id)
        if delivery is None:
            raise Http404
        if not self.has_resend_permission(request, delivery):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        chosen = WebhookDelivery.objects.filter(pk=delivery.pk)
        each(
            request, chosen, "On its way again: {}.", partial(deliveries.resend, now=timezone.now())
        )
        return redirect("admin:purchases_webhookdelivery_change", delivery.pk)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        context["may_resend"] = self.has_resend_permission(request, kwargs.get("obj"))
        return super().render_change_form(request, context, *args, **kwargs)
