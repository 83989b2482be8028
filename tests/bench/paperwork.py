"""What is written down about purchases: refunds, e-mails, events, webhooks, the log of staff."""

from datetime import datetime
from typing import TYPE_CHECKING

from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType

from offers.impressions import Impression
from offers.models import Offer
from purchases.bulk.models import BulkItem, BulkJob
from purchases.models import Dispute, Email, Refund, StripeEvent, WebhookDelivery, WebhookEndpoint
from tests.bench.filling import fill

if TYPE_CHECKING:
    from tests.bench.data import Size

# What Stripe sends about a session that was paid, in its usual size.
PAYLOAD = """jsonb_build_object(
    'id', 'evt_' || md5(kind || n), 'object', 'event', 'api_version', '2025-06-30.basil',
    'created', extract(epoch FROM created_at)::bigint, 'livemode', true, 'type', kind,
    'pending_webhooks', 1, 'request', jsonb_build_object('id', NULL, 'idempotency_key', NULL),
    'data', jsonb_build_object('object', jsonb_build_object(
        'id', 'cs_live_' || md5(n::text) || md5('s' || n), 'object', 'checkout.session',
        'amount_subtotal', price * quantity * 100, 'amount_total', price * quantity * 100,
        'client_reference_id', id, 'currency', lower(currency), 'status', 'complete',
        'payment_intent', 'pi_' || md5(n::text), 'payment_status', 'paid', 'mode', 'payment',
        'payment_method_types', jsonb_build_array('card', 'link', 'sepa_debit'),
        'metadata', jsonb_build_object('purchase', id, 'offer', offer_id, 'event', event_id),
        'customer_details', jsonb_build_object('email', 'buyer' || buyer || '@example.com',
            'name', 'Person ' || buyer, 'phone', NULL, 'tax_exempt', 'none', 'tax_ids', '[]'::jsonb,
            'address', jsonb_build_object('city', 'Berlin', 'country', 'DE', 'line1',
                'Main street ' || n, 'line2', NULL, 'postal_code', '10115', 'state', NULL)),
        'success_url', 'https://tickets.example.com/purchases/' || id || '/thanks',
        'cancel_url', 'https://tickets.example.com/purchases/' || id || '/cancelled',
        'ui_mode', 'hosted', 'locale', NULL, 'total_details', jsonb_build_object(
            'amount_discount', 0, 'amount_shipping', 0, 'amount_tax', 0),
        'automatic_tax', jsonb_build_object('enabled', false, 'liability', NULL, 'status', NULL),
        'custom_text', jsonb_build_object('after_submit', NULL, 'shipping_address', NULL,
            'submit', NULL, 'terms_of_service_acceptance', NULL))))"""

# Of the jobs n = 0 … 199: the drafts and those under way are the large ones.
JOB_SIZE = "CASE WHEN n < 5 THEN 2000 ELSE 20 END"


def make(size: "Size", *, now: datetime) -> None:
    """One of everything for each purchase that it belongs to."""
    _money_back(now=now)
    _emails()
    _stripe_events()
    _webhooks(size, now=now)
    _staff_log(size, now=now)
    _history(size, now=now)
    _impressions(now=now)
    _bulk_jobs(now=now)


def _money_back(*, now: datetime) -> None:
    fill(
        Refund,
        {
            "id": "pg_temp.id('refund', n)",
            "purchase_id": "id",
            "payment_intent_id": "'pi_' || md5(n::text)",
            "amount": "CASE WHEN status = 'paid' THEN 1 ELSE price * quantity END",
            "state": "CASE status WHEN 'refunding' THEN 'pending' WHEN 'refund_due' THEN "
            "'requested' ELSE 'succeeded' END",
            "cause": "CASE status WHEN 'refund_due' THEN 'late_payment' ELSE 'staff' END",
            "stripe_refund_id": "CASE WHEN status <> 'refund_due' THEN 're_' || md5(n::text) END",
            "created_at": "created_at + interval '3 days'",
            "settled_at": "CASE WHEN status IN ('paid', 'refunded') "
            "THEN least(created_at + interval '75 hours', %(now)s) END",
            "due_at": "%(now)s + interval '1 hour'",
        },
        source="planned WHERE status IN ('refunded', 'refunding', 'refund_due') "
        "OR (status = 'paid' AND mod(n, 100) = 0)",
        now=now,
    )
    fill(
        Dispute,
        {
            "id": "'dp_' || md5(n::text)",
            "purchase_id": "id",
            "payment_intent_id": "'pi_' || md5(n::text)",
            "amount": "price * quantity",
            "currency": "currency",
            "reason": "'fraudulent'",
            "status": "(ARRAY['won', 'lost', 'needs_response', 'under_review'])[1 + mod(n, 4)]",
            "evidence_due_by": "created_at + interval '30 days'",
            "created_at": "created_at + interval '10 days'",
            "updated_at": "created_at + interval '10 days'",
        },
        source="planned WHERE status = 'paid' AND mod(n, 321) = 0",
    )


def _emails() -> None:
    fill(
        Email,
        {
            "purchase_id": "id",
            "occasion": "'confirmed'",
            "attachments": "CASE WHEN type = 'SERVICE' THEN jsonb_build_array(jsonb_build_object("
            "'name', 'invitation.ics', 'type', 'text/calendar', 'content', repeat('QkVHSU4', 300)))"
            " ELSE '[]'::jsonb END",
            "state": "CASE WHEN mod(n, 500) = 3 THEN 'given_up' ELSE 'sent' END",
            "attempts": "1",
            "error": "CASE WHEN mod(n, 500) = 3 THEN '550 no such mailbox' ELSE '' END",
            "due_at": "created_at + interval '5 minutes'",
            "created_at": "created_at + interval '4 minutes'",
            "sent_at": "CASE WHEN mod(n, 500) <> 3 THEN created_at + interval '5 minutes' END",
        },
        source="planned WHERE status IN ('paid', 'refunding', 'refunded') ORDER BY created_at",
    )


def _stripe_events() -> None:
    for kind, which in (
        ("checkout.session.completed", "status IN ('paid', 'refunding', 'refunded', 'refund_due')"),
        ("checkout.session.expired", "status = 'released'"),
        ("charge.refunded", "status = 'refunded'"),
    ):
        fill(
            StripeEvent,
            {
                "id": "'evt_' || md5(kind || n)",
                "type": "kind",
                "created": "created_at + interval '3 minutes'",
                "payload": PAYLOAD,
                "state": "CASE mod(n, 1000) WHEN 1 THEN 'failed' WHEN 2 THEN 'dead' "
                "WHEN 3 THEN 'ignored' ELSE 'processed' END",
                "attempts": "1",
                "error": "CASE WHEN mod(n, 1000) IN (1, 2) THEN repeat('Traceback', 50) "
                "ELSE '' END",
                "received_at": "created_at + interval '3 minutes'",
                "processed_at": "created_at + interval '3 minutes'",
                "due_at": "created_at + interval '3 minutes'",
            },
            source=f"planned CROSS JOIN (SELECT %(kind)s::text AS kind) AS k WHERE {which} "
            "ORDER BY created_at",
            kind=kind,
        )


def _webhooks(size: "Size", *, now: datetime) -> None:
    fill(
        WebhookEndpoint,
        {
            "id": "pg_temp.id('endpoint', 2 * n + k)",
            "organization_id": "pg_temp.id('organization', n)",
            "url": "'https://receiver.example.com/' || n || '/' || k",
            "secret": "'whsec_bench'",
            "created_at": "%(now)s",
            "due_at": "%(now)s",
        },
        source="generate_series(0, %(organizations)s - 1) AS n, generate_series(0, 1) AS k",
        organizations=size.organizations,
        now=now,
    )
    fill(
        WebhookDelivery,
        {
            "id": "pg_temp.id('delivery', p.n)",
            "endpoint_id": "endpoint.id",
            "message_id": "'msg_' || md5(p.n::text)",
            "key": "'purchase.paid:' || p.id",
            "type": "'purchase.paid'",
            "payload": "jsonb_build_object('type', 'purchase.paid', 'data', jsonb_build_object("
            "'purchase', p.id, 'offer', p.offer_id, 'offer_title', p.title, 'quantity', quantity))",
            "state": "CASE mod(p.n, 300) WHEN 1 THEN 'waiting' WHEN 2 THEN 'given_up' "
            "ELSE 'delivered' END",
            "attempts": "1",
            "due_at": "p.created_at + interval '4 minutes'",
            "response_status": "204",
            "duration_ms": "mod(p.n, 400)",
            "created_at": "p.created_at + interval '4 minutes'",
            "last_attempt_at": "p.created_at + interval '4 minutes'",
            "delivered_at": "p.created_at + interval '4 minutes'",
        },
        source="planned p JOIN offers_event e ON e.id = p.event_id JOIN "
        "(SELECT DISTINCT ON (organization_id) * FROM purchases_webhookendpoint) AS endpoint "
        "ON endpoint.organization_id = e.organization_id WHERE p.status = 'paid' "
        "ORDER BY p.created_at",
    )


def _staff_log(size: "Size", *, now: datetime) -> None:
    fill(
        LogEntry,
        {
            "user_id": "%(user)s",
            "content_type_id": "%(content_type)s",
            "object_id": "id::text",
            "object_repr": "title",
            "action_flag": "2",
            "change_message": '\'[{"changed": {"fields": ["Price"]}}]\'',
            "action_time": "%(now)s - n * interval '1 hour'",
        },
        source="planned_offer, generate_series(1, 5)",
        user=User.objects.get(username="manager").pk,
        content_type=ContentType.objects.get_for_model(Offer).pk,
        now=now,
    )


def _history(size: "Size", *, now: datetime) -> None:
    """Five versions of each offer; of one, a version for every third offer that there is."""
    history = Offer.history.model
    own = {field.attname for field in Offer._meta.concrete_fields}
    kept = [field.attname for field in history._meta.concrete_fields if field.attname in own]
    fill(
        history,
        {name: f'o."{name}"' for name in kept}
        | {
            "title": "o.title || ' v' || k",
            "history_date": "%(now)s - k * interval '1 day'",
            "history_type": "'~'",
        },
        source="planned_offer JOIN offers_offer o USING (id), LATERAL generate_series("
        "1, CASE WHEN n = 0 THEN %(most)s ELSE 5 END) AS k",
        most=max(5, size.offers // 3),
        now=now,
    )


def _impressions(*, now: datetime) -> None:
    """Four months of them: on each day half of the offers that are on sale were seen."""
    fill(
        Impression,
        {
            "offer_id": "o.id",
            "placement": "o.placement",
            "day": "(%(now)s AT TIME ZONE 'UTC')::date - k",
            "seen": "1 + mod(n * 7 + k, 500)",
        },
        source="planned_offer p JOIN offers_offer o USING (id), generate_series(0, 119) AS k "
        "WHERE o.is_active AND NOT o.is_archived AND pg_temp.dice(n + k, 2) = 0",
        now=now,
    )


def _bulk_jobs(*, now: datetime) -> None:
    """Jobs of the largest organization and of superusers, two with thousands of rows; drafts."""
    fill(
        BulkJob,
        {
            "id": "pg_temp.id('job', n)",
            "organization_id": "CASE WHEN mod(n, 4) > 0 THEN pg_temp.id('organization', 0) END",
            "kind": "'release_holds'",
            "asked_by_id": "asker.id",
            "asked_at": "%(now)s - n * interval '1 hour'",
            # The first two haven't been started.
            "started_at": "CASE WHEN n > 1 THEN %(now)s - n * interval '1 hour' END",
            "finished_at": "CASE WHEN n > 4 THEN %(now)s - n * interval '50 minutes' END",
            "due_at": "%(now)s",
            "total": JOB_SIZE,
        },
        source="generate_series(0, 199) AS n JOIN auth_user asker "
        "ON asker.username = CASE WHEN mod(n, 4) > 0 THEN 'manager' ELSE 'superuser' END",
        now=now,
    )
    fill(
        BulkItem,
        {
            "job_id": "pg_temp.id('job', n)",
            "object_id": "pg_temp.id('purchase', k)",
            "state": "CASE WHEN n < 2 THEN 'waiting' WHEN mod(k, 5) = 0 THEN 'refused' "
            "WHEN mod(k, 7) = 0 THEN 'failed' WHEN n < 5 AND k > 20 THEN 'waiting' ELSE 'done' END",
            "reason": "CASE WHEN n > 1 AND (mod(k, 5) = 0 OR mod(k, 7) = 0) "
            "THEN 'It isn''t on hold.' ELSE '' END",
            "attempts": "1",
            "due_at": "%(now)s",
            "settled_at": "%(now)s",
        },
        # An expression of this package, as everything in these.
        source="generate_series(0, 199) AS j(n) JOIN "  # noqa: S608
        "(SELECT n AS k FROM planned WHERE n < 2000) AS p ON k < " + JOB_SIZE,
        now=now,
    )
