"""Packing, shipping and handing over, for the staff who do it; all by ``shipping.orders``."""

import uuid
from datetime import datetime
from typing import Any, ClassVar, cast

from django.contrib import admin, messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone
from unfold.decorators import display

from fulfillment.models import Fulfillment
from fulfillment.shipping import addresses, orders, packing, stages
from fulfillment.shipping.errors import InvalidShipment
from fulfillment.shipping.forms import AddressForm, CarrierForm, ShipmentForm, TrackingFileForm
from fulfillment.shipping.models import ShippingOrder
from offers import spreadsheet, staff_log
from offers.asking import question
from offers.errors import DomainError
from offers.scoped_admin import EDITORS, ScopedAdmin, visible_to
from purchases.models import DeliveryMethod
from purchases.read_only_admin import ReadOnly

# Rows of the page on which parcels are marked as shipped.
MOST_AT_ONCE = 200


class StageFilter(admin.SimpleListFilter):
    """What is to be done with an order, or was."""

    title = "stage"
    parameter_name = "stage"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(stage.value, stage.label) for stage in stages.Stage]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        chosen = self.value()
        return queryset.filter(stages.STAGES[chosen]) if chosen in stages.STAGES else queryset


@admin.register(ShippingOrder)
class ShippingOrderAdmin(ReadOnly, ScopedAdmin):
    """Read-only, but for what its actions and pages do."""

    organization = "fulfillment__purchase__event__organization"
    list_before_template = "admin/fulfillment/shippingorder/list_tools.html"
    change_form_outer_before_template = "admin/fulfillment/shippingorder/tools.html"
    list_display = (
        "paid_at", "stage", "name", "country", "offer", "quantity", "carrier", "tracking_number",
    )  # fmt: skip
    list_filter = (
        StageFilter, "method", "fulfillment__purchase__event", "fulfillment__purchase__offer",
    )  # fmt: skip
    list_select_related = ("fulfillment__purchase__user", "fulfillment__purchase__event")
    search_fields = (
        "=fulfillment__purchase__id", "=pickup_code", "=tracking_number", "name",
        "fulfillment__purchase__user__username", "fulfillment__purchase__offer__title",
    )  # fmt: skip
    ordering: ClassVar = ["-fulfillment__paid_at"]
    fields = (
        "purchase", "buyer", "method", "stage", "address", "carrier", "tracking_number",
        "tracking_url", "created_at", "shipped_at", "delivered_at", "revoked_at", "returned_at",
    )  # fmt: skip
    readonly_fields = ("purchase", "buyer", "stage", "address")
    actions = (
        "print_list", "download_list", "ship", "mark_delivered", "hand_over", "mark_returned",
    )  # fmt: skip

    @admin.display(ordering="fulfillment__paid_at")
    def paid_at(self, order: ShippingOrder) -> Any:
        return order.fulfillment.paid_at

    @admin.display(ordering="fulfillment__purchase__offer_title")
    def offer(self, order: ShippingOrder) -> str:
        return order.fulfillment.purchase.offer_title

    @admin.display(ordering="fulfillment__purchase__quantity")
    def quantity(self, order: ShippingOrder) -> int:
        return order.fulfillment.purchase.quantity

    @display(
        label={
            "to pack": "warning", "to collect": "warning", "shipped": "info",
            "delivered": "success", "handed over": "success", "done by staff": "success",
            "refund under way": "danger", "refunded: came back?": "danger",
        }
    )  # fmt: skip
    def stage(self, order: ShippingOrder) -> str:
        return str(stages.stage(order).label)

    @admin.display()
    def purchase(self, order: ShippingOrder) -> str:
        return f"{order.fulfillment.purchase} ({order.fulfillment.purchase_id})"

    @admin.display()
    def buyer(self, order: ShippingOrder) -> str:
        return str(order.fulfillment.purchase.user)

    @admin.display()
    def address(self, order: ShippingOrder) -> str:
        return "\n".join(addresses.label(order))

    def get_urls(self) -> list[Any]:
        own = [
            path(route, self.admin_site.admin_view(view), name=f"fulfillment_shippingorder_{name}")
            for route, view, name in (
                ("packing-list/", self.print_view, "packing_list"),
                ("packing-list.csv", self.download_view, "packing_csv"),
                ("ship/", self.ship_view, "ship"),
                ("tracking-numbers/", self.tracking_view, "tracking"),
                ("without-address/", self.without_address_view, "without_address"),
                ("address/<uuid:fulfillment_id>/", self.address_view, "address"),
            )
        ]
        return [*own, *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        query = request.GET.urlencode()
        own = {
            "title": "Shipping orders",
            "without_address": self._without_address(request).count(),
            "filters": f"?{query}" if query else "",
        }
        return super().changelist_view(request, own | (extra_context or {}))

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        order = kwargs["obj"]
        context["may_act"] = self.allows(request, EDITORS, order)
        return super().render_change_form(request, context, *args, **kwargs)

    def _page(self, request: HttpRequest, name: str, **context: Any) -> HttpResponse:
        everywhere = self.admin_site.each_context(request) | {"opts": self.opts}
        template = f"admin/fulfillment/shippingorder/{name}.html"
        return TemplateResponse(request, template, everywhere | context)

    def _ask(self, request: HttpRequest, name: str, **more: Any) -> HttpResponse:
        return question(
            request,
            opts=self.opts,
            back=reverse("admin:fulfillment_shippingorder_changelist"),
            template=f"admin/fulfillment/shippingorder/{name}.html",
            **more,
        )

    def _back(self) -> HttpResponse:
        return redirect(reverse("admin:fulfillment_shippingorder_changelist"))

    def _editable(self, request: HttpRequest) -> QuerySet[ShippingOrder]:
        """The orders that the caller may change; ``PermissionDenied`` for who may none."""
        if not self.allows(request, EDITORS):
            raise PermissionDenied
        return self.within(request, self.get_queryset(request), EDITORS)

    # -- The packing list -------------------------------------------------------------------------

    @admin.action(description="Packing list, to print")
    def print_list(self, request: HttpRequest, queryset: QuerySet[ShippingOrder]) -> HttpResponse:
        rows = [(order, addresses.label(order)) for order in packing.to_pack(queryset)]
        return self._page(request, "packing_list", title="Packing list", rows=rows)

    @admin.action(description="Packing list, as a CSV file")
    def download_list(
        self, request: HttpRequest, queryset: QuerySet[ShippingOrder]
    ) -> HttpResponse:
        text = packing.as_csv(packing.to_pack(queryset))
        name = f"packing-list-{timezone.now():%Y-%m-%d}.csv"
        return spreadsheet.response(text, name=name)

    def print_view(self, request: HttpRequest) -> HttpResponse:
        """Of all that the list's filters and search leave."""
        return self.print_list(request, self._filtered(request))

    def download_view(self, request: HttpRequest) -> HttpResponse:
        return self.download_list(request, self._filtered(request))

    def _filtered(self, request: HttpRequest) -> QuerySet[ShippingOrder]:
        if not self.has_view_permission(request):
            raise PermissionDenied
        try:
            found: QuerySet[ShippingOrder] = self.get_changelist_instance(request).get_queryset(
                request
            )
        except IncorrectLookupParameters as error:
            raise Http404 from error
        return found

    # -- Shipping ---------------------------------------------------------------------------------

    @admin.action(description="Mark shipped…")
    def ship(self, request: HttpRequest, queryset: QuerySet[ShippingOrder]) -> HttpResponse | None:
        sent = queryset.filter(method=DeliveryMethod.SHIPPING)
        if bags := queryset.count() - sent.count():
            messages.warning(request, f"{bags} left out: they are collected, so hand them over.")
        chosen = list(sent.values_list("pk", flat=True)[: MOST_AT_ONCE + 1])
        if len(chosen) > MOST_AT_ONCE:
            messages.error(
                request, f"Choose at most {MOST_AT_ONCE} at once, or send in a CSV file."
            )
            return None
        query = QueryDict(mutable=True)
        query.setlist("order", [str(pk) for pk in chosen])
        address = reverse("admin:fulfillment_shippingorder_ship")
        return redirect(f"{address}?{query.urlencode()}")

    def ship_view(self, request: HttpRequest) -> HttpResponse:
        """Ask carrier and number of each; what is right is done, the rest is shown again."""
        sent = request.POST if request.method == "POST" else None
        wanted = [pk for pk in (sent or request.GET).getlist("order") if pk.isdecimal()]
        chosen = self._editable(request).filter(pk__in=wanted[:MOST_AT_ONCE])
        rows = [ShipmentForm(order, sent) for order in chosen.order_by("fulfillment__paid_at")]
        shared = CarrierForm(sent)
        if sent is not None and shared.is_valid():
            now = timezone.now()
            refused = [
                row for row in rows if not self._ship_row(request, row, shared.cleaned_data, now)
            ]
            self._say_shipped(request, [row for row in rows if row not in refused], now)
            rows = refused
        if not rows:
            return self._back()
        before = all(row.order.shipped_at for row in rows)
        return self._ask(
            request,
            "ship",
            title="Correct the tracking number" if before else "Mark shipped",
            form=shared,
            button="Correct" if before else "Mark shipped",
            explanation="Each buyer gets one e-mail with the carrier and the number. What is right "
            "is done at once; what isn't comes back here, and nothing else does. A row that was "
            "shipped before is corrected, without another e-mail.",
            rows=rows,
        )

    def _say_shipped(self, request: HttpRequest, rows: list[ShipmentForm], now: datetime) -> None:
        """What was done: shipped at ``now``, corrected, or left as a colleague shipped it."""
        actor = cast("User", request.user)
        done = [row.order for row in rows if row.has_changed() or row.order.shipped_at == now]
        if left := len(rows) - len(done):
            messages.info(
                request, f"{left} shipped before, and not changed here: left as they are."
            )
        for before, said in (
            (False, "marked as shipped"),
            (True, "shipped before: the tracking number is corrected"),
        ):
            some = [order for order in done if (order.shipped_at != now) == before]
            staff_log.record(actor, *some, message=f"{said.capitalize()}.")
            if some:
                messages.success(request, f"{len(some)} {said}.")

    def _ship_row(
        self, request: HttpRequest, row: ShipmentForm, shared: dict[str, Any], now: datetime
    ) -> bool:
        """Whether it was done, or is done already; if not, the row says why."""
        if not row.is_valid():
            return False
        given = row.cleaned_data
        if row.order.shipped_at is not None:
            # What was not touched may not have been there yet when the page was opened.
            given |= {
                name: getattr(row.order, name) for name in given if name not in row.changed_data
            }
        if not (given["tracking_number"] or shared["untracked"]):
            row.add_error("tracking_number", "Enter the number, or tick that there is none.")
            return False
        try:
            row.order = orders.mark_shipped(
                row.order.pk,
                **given | {"carrier": given["carrier"] or shared["carrier"]},
                corrects=row.has_changed(),
                **self._by(request) | {"now": now},
            )
        except InvalidShipment as refusal:
            row.add_error(refusal.field, str(refusal))
        except DomainError as refusal:
            row.add_error(None, str(refusal))
        return row.is_valid()

    def tracking_view(self, request: HttpRequest) -> HttpResponse:
        """Take a file of tracking numbers; each line is done, or listed with what is wrong."""
        editable = self._editable(request)
        sent = (request.POST, request.FILES) if request.method == "POST" else ()
        form = TrackingFileForm(*sent)
        refused: list[tuple[packing.Line, str]] = []
        if form.is_valid():
            try:
                lines = packing.read_tracking(form.cleaned_data["file"].read())
            except InvalidShipment as refusal:
                form.add_error("file", str(refusal))
            else:
                refused = self._apply(request, lines, editable)
                if not refused:
                    return self._back()
        return self._ask(
            request,
            "tracking",
            title="Tracking numbers from a file",
            form=form,
            button="Mark shipped",
            refused=refused,
        )

    def _apply(
        self, request: HttpRequest, lines: list[packing.Line], among: QuerySet[ShippingOrder]
    ) -> list[tuple[packing.Line, str]]:
        """Do what the lines of a file say; returns those that were refused, and why."""
        shipped: list[int] = []
        now = timezone.now()

        def ship(pk: int, line: packing.Line) -> None:
            orders.mark_shipped(
                pk,
                carrier=line.carrier,
                tracking_number=line.tracking_number,
                tracking_url=line.tracking_url,
                **self._by(request) | {"now": now},
            )
            shipped.append(pk)

        refused = list(packing.apply_tracking(lines, among=among, ship=ship))
        done = list(among.filter(pk__in=shipped))
        corrected = [order for order in done if order.shipped_at != now]
        staff_log.record(cast("User", request.user), *done, message="Shipped, by a file.")
        messages.success(request, f"{len(done) - len(corrected)} marked as shipped.")
        if corrected:
            messages.success(request, f"{len(corrected)} were shipped before, and are corrected.")
        return refused

    # -- What is one click ------------------------------------------------------------------------

    @admin.action(description="Mark delivered")
    def mark_delivered(self, request: HttpRequest, queryset: QuerySet[ShippingOrder]) -> None:
        self.each(request, queryset, orders.mark_delivered, "delivered")

    @admin.action(description="Hand over (collection)")
    def hand_over(self, request: HttpRequest, queryset: QuerySet[ShippingOrder]) -> None:
        """For buyers whom staff know without their code."""
        self.each(request, queryset, orders.hand_over, "handed over")

    @admin.action(description="It came back (after a refund)")
    def mark_returned(self, request: HttpRequest, queryset: QuerySet[ShippingOrder]) -> None:
        self.each(request, queryset, orders.mark_returned, "came back")

    @staticmethod
    def _by(request: HttpRequest) -> dict[str, Any]:
        return {"now": timezone.now(), "source": "admin", "actor": cast("User", request.user)}

    # -- Addresses --------------------------------------------------------------------------------

    def _without_address(self, request: HttpRequest) -> QuerySet[Fulfillment]:
        seen = visible_to(request, Fulfillment, self.admin_site)
        return seen.filter(stages.WITHOUT_ADDRESS)

    def without_address_view(self, request: HttpRequest) -> HttpResponse:
        """What is paid and can't be sent; it has no order yet."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        waiting = self._without_address(request).select_related("purchase__user", "purchase__event")
        return self._page(
            request,
            "without_address",
            title="Without address",
            waiting=waiting.order_by("paid_at")[:500],
            may_act=self.allows(request, EDITORS),
        )

    def address_view(self, request: HttpRequest, fulfillment_id: uuid.UUID) -> HttpResponse:
        """Enter or correct where a parcel goes."""
        editable = visible_to(request, Fulfillment, self.admin_site, roles=EDITORS)
        fulfillment = (
            editable.filter(pk=fulfillment_id).select_related("purchase__user", "shipping_order")
        ).first()
        if fulfillment is None:
            if not self.allows(request, EDITORS):
                raise PermissionDenied
            raise Http404
        order = getattr(fulfillment, "shipping_order", None)
        form = AddressForm(request.POST if request.method == "POST" else None, instance=order)
        if form.is_valid():
            try:
                orders.enter_address(fulfillment.pk, form.cleaned_data, **self._by(request))
            except InvalidShipment as refusal:
                form.add_error(refusal.field, str(refusal))
            except DomainError as refusal:
                form.add_error(None, str(refusal))
            else:
                self._log_address(request, fulfillment)
                messages.success(request, "The address is on record.")
                return self._back()
        purchase = fulfillment.purchase
        return question(
            request,
            opts=self.opts,
            title=f"Address for {purchase}",
            form=form,
            button="Send it there",
            back=reverse("admin:fulfillment_shippingorder_changelist"),
            explanation=f"{purchase.user} bought {purchase} (purchase {purchase.pk}).",
        )

    def _log_address(self, request: HttpRequest, fulfillment: Fulfillment) -> None:
        """Without the address, which isn't the log's business."""
        # Until the worker places it there may be no order yet.
        order = ShippingOrder.objects.filter(fulfillment=fulfillment).first()
        what = order or fulfillment
        staff_log.record(cast("User", request.user), what, message="Entered the address.")
