"""Which worker runs which task, and for how long: Celery's queues, by urgency.

A message only makes things sooner (the row is the queue), so a queue decides who waits for whom,
and never what gets lost. A worker without ``--queues`` takes from all of them, the urgent first.

How long a task may take is decided twice. Celery enforces time limits in a pool of processes alone
(https://docs.celeryq.dev/en/stable/userguide/workers.html#time-limits), and ours is one of threads:
its sweeps are made for threads, of which one at a time talks to the mail server, and they share a
pool of connections. So every sweep ends by itself (``offers.row_queue.in_time``), each of its steps
has a time-out, and the limits below are for who chooses processes all the same.
"""

from datetime import timedelta

from kombu import Queue

URGENT, DEFAULT, BULK = "urgent", "default", "bulk"

# In the order in which a worker of several takes from them.
QUEUES = [Queue(URGENT), Queue(DEFAULT), Queue(BULK)]

ROUTES = {
    # A buyer waits for it, or money does.
    "purchases.process_events": URGENT,
    "purchases.send_refunds": URGENT,
    "fulfillment.deliver_purchase": URGENT,
    # Sweeps: at most a minute each, most of them much less.
    "purchases.end_overdue_holds": DEFAULT,
    "purchases.send_emails": DEFAULT,
    "accounts.send_letters": DEFAULT,
    "fulfillment.deliver": DEFAULT,
    "purchases.deliver_webhooks": DEFAULT,
    "fulfillment.follow_slots": DEFAULT,
    "fulfillment.remind": DEFAULT,
    "offers.expire_offers": DEFAULT,
    # Also the worker's heartbeat, which must not stand behind minutes of work.
    "offers.flush_impressions": DEFAULT,
    # Long, or many at once after an import, and nobody waits.
    "purchases.run_bulk_jobs": BULK,
    "purchases.reconcile": BULK,
    "purchases.check_inventory": BULK,
    "purchases.sync_offer": BULK,
    "purchases.sync_offers": BULK,
}

# The longest of our own is a reconciliation, of ten minutes and one more row.
SOFT_TIME_LIMIT = timedelta(minutes=12)
TIME_LIMIT = timedelta(minutes=15)
# Redis gives a message that isn't acknowledged to somebody else after so long. Shorter than a task,
# it would run that task again and again while it runs:
# https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/redis.html#caveats
VISIBILITY_TIMEOUT = timedelta(minutes=30)
