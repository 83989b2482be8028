"""django-prometheus' middleware, which counts requests, without the counts that nobody looks at.

Half of what it counts is on no dashboard: character sets, transports, bytes. Each would be written
to a file at each request.
"""

from typing import Any

from django_prometheus import middleware

LEFT_OUT = frozenset(
    {
        "django_http_requests_total_by_transport",
        "django_http_requests_total_by_view_transport_method",
        "django_http_requests_body_total_bytes",
        "django_http_responses_total_by_charset",
        "django_http_responses_body_total_bytes",
    }
)


class _Nothing:
    """In the place of a metric that isn't kept."""

    def labels(self, **labels: Any) -> "_Nothing":
        return self

    def inc(self) -> None:
        """Count nothing."""

    def observe(self, amount: float) -> None:
        """Count nothing."""


class _Metrics(middleware.Metrics):
    def register_metric(self, metric_cls: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        if name in LEFT_OUT:
            return _Nothing()
        return super().register_metric(metric_cls, name, *args, **kwargs)


class Before(middleware.PrometheusBeforeMiddleware):
    """Before all other middleware."""

    metrics_cls = _Metrics


class After(middleware.PrometheusAfterMiddleware):
    """After all other middleware."""

    metrics_cls = _Metrics
