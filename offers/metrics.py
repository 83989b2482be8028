"""What shows the limits coming, counted where it happens; docs/metrics.md says what each tells.

Each costs a few microseconds and raises nothing. They are kept per process, and where
``PROMETHEUS_MULTIPROC_DIR`` names a folder, in files there, which whoever answers ``/metrics`` adds
up: so gauges are sums (or the worst) over the processes that live. What is found by asking the
database, at each scrape, is in ``offers_project.monitoring``.
"""

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

# A series more for each, and with several processes there are none anyway.
disable_created_metrics()

# Seconds. Up to what LOCK_TIMEOUT_MS and the pool allow, closely where it begins to be felt.
WAITS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
# Seconds. A call to Stripe takes some 300 ms, and is given up after 14 s.
CALLS = (0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 15)
# Seconds, from a webhook that is processed as it comes to one that was tried for hours.
LAGS = (1, 2, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600)

# -- PostgreSQL -----------------------------------------------------------------------------------

lock_wait = Histogram(
    "offers_lock_wait_seconds",
    "From asking for an offer's row lock until it was had (by a purchase: committed), or not.",
    buckets=WAITS,
)
turn_wait = Histogram(
    "offers_turn_wait_seconds",
    "From asking for a turn at the interpreter until it was had, or was not; of those that waited.",
    buckets=WAITS,
)
pool_wait = Histogram(
    "offers_pool_wait_seconds",
    "From asking for a database connection until it was had, or was not.",
    ["database"],
    buckets=WAITS,
)
pool_in_use = Gauge(
    "offers_pool_in_use",
    "Database connections that somebody has.",
    ["database"],
    multiprocess_mode="livesum",
)
pool_size = Gauge(
    "offers_pool_size",
    "Database connections that there may be, of the processes that use the database.",
    ["database"],
    multiprocess_mode="livesum",
)

replica_reads = Counter(
    "offers_replica_reads",
    "Lists that were read from the replica, or from the primary though there is one.",
    ["database"],
)

# -- What may be away -----------------------------------------------------------------------------

service_away = Gauge(
    "offers_service_away",
    "1 while the last call of some process to the service failed, and it goes on without.",
    ["service"],
    multiprocess_mode="livemax",
)
for _service in ("redis", "stripe", "postgresql"):
    service_away.labels(_service).set(0)

# -- Stripe ---------------------------------------------------------------------------------------

stripe_call = Histogram(
    "offers_stripe_call_seconds",
    "One call to Stripe, whatever came of it.",
    buckets=CALLS,
)
stripe_failures = Counter(
    "offers_stripe_failures",
    "Calls to Stripe that failed for its part: no answer, or one that says so.",
)
stripe_inside = Gauge(
    "offers_stripe_conversations",
    "Threads that have room to speak to Stripe.",
    multiprocess_mode="livesum",
)
stripe_waiting = Gauge(
    "offers_stripe_waiting",
    "Threads that wait for room to speak to Stripe.",
    multiprocess_mode="livesum",
)
stripe_refused = Counter(
    "offers_stripe_refused",
    "Conversations with Stripe that were refused here: no room, or a pause after a 429.",
    ["reason"],
)
for _reason in ("saturated", "turned_away"):
    stripe_refused.labels(_reason)

# -- Webhooks -------------------------------------------------------------------------------------

event_lag = Histogram(
    "offers_event_lag_seconds",
    "From what happened at Stripe until its event was processed here.",
    buckets=LAGS,
)
