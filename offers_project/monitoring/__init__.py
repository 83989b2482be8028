"""``/metrics``: what every process counted, and what waits in the database (docs/metrics.md)."""
