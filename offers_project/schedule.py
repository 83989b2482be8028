"""What Celery's beat sends, and how often (seconds). Each is a sweep, which finds what waits."""

from typing import Any

SWEEPS: dict[str, dict[str, Any]] = {
    "end overdue holds": {"task": "purchases.end_overdue_holds", "schedule": 30.0},
    "sync offers to Stripe": {"task": "purchases.sync_offers", "schedule": 30.0},
    "process stored Stripe events": {"task": "purchases.process_events", "schedule": 30.0},
    "send refunds": {"task": "purchases.send_refunds", "schedule": 30.0},
    "send e-mails": {"task": "purchases.send_emails", "schedule": 30.0},
    "send letters about accounts": {"task": "accounts.send_letters", "schedule": 30.0},
    "deliver what was paid for": {"task": "fulfillment.deliver", "schedule": 30.0},
    "deliver webhooks": {"task": "purchases.deliver_webhooks", "schedule": 30.0},
    "run bulk actions": {"task": "purchases.run_bulk_jobs", "schedule": 30.0},
    "take bookings along with their slots": {"task": "fulfillment.follow_slots", "schedule": 60.0},
    "remind of bookings": {"task": "fulfillment.remind", "schedule": 300.0},
    "reconcile lately": {"task": "purchases.reconcile", "args": [0.5], "schedule": 300.0},
    "reconcile the last day": {"task": "purchases.reconcile", "args": [25.0], "schedule": 3600.0},
    "check the inventory": {"task": "purchases.check_inventory", "schedule": 900.0},
    "deactivate expired offers": {"task": "offers.expire_offers", "schedule": 60.0},
    "keep what was shown": {"task": "offers.flush_impressions", "schedule": 60.0},
}
for _entry in SWEEPS.values():
    # A sweep that nobody picked up before the next one is due is worth nothing.
    _entry["options"] = {"expires": _entry["schedule"]}
