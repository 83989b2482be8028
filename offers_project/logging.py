"""One way to log for Django, Celery and our apps: structlog, as JSON or readable in a terminal."""

import logging
import re
from typing import Any

import structlog
from django.core.exceptions import ImproperlyConfigured

STYLES = ("console", "json")


# Whoever has the address of bought content has the content.
SECRET_ADDRESS = re.compile(r"(/content/)[^\s/?]+")


def without_secret_addresses(logger: Any, method: str, line: dict[str, Any]) -> dict[str, Any]:
    """A structlog processor: in what is said of requests, ``/content/…`` ends there."""
    for key in ("event", "request"):
        if isinstance(line.get(key), str):
            line[key] = SECRET_ADDRESS.sub(r"\1…", line[key])
    return line


def configure(*, level: str, style: str) -> dict[str, Any]:
    """Configure structlog and return Django's ``LOGGING``; called once, by the settings.

    The request id, bound by django-structlog's middleware, is on every line of a request, and
    travels to the tasks that the request wakes.
    """
    if style not in STYLES:
        raise ImproperlyConfigured(f"LOG_FORMAT is {style!r}: use one of {', '.join(STYLES)}.")
    if level not in logging.getLevelNamesMapping():
        raise ImproperlyConfigured(f"LOG_LEVEL is {level!r}: use DEBUG, INFO, WARNING or ERROR.")
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        without_secret_addresses,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    if style == "json":
        render: list[Any] = [
            structlog.processors.ExceptionRenderer(),
            structlog.processors.JSONRenderer(),
        ]
    else:
        # Plain, because rich's tracebacks show every local variable, secrets among them.
        plain = structlog.dev.plain_traceback
        render = [structlog.dev.ConsoleRenderer(colors=False, exception_formatter=plain)]
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "structured": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": shared,
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    *render,
                ],
            }
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "structured"}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            "django": {"level": level},
            "django.request": {"level": "ERROR"},
            # The SDK logs request bodies and ids at INFO; ours say what matters without them.
            "stripe": {"level": "WARNING"},
            # Warnings about a strange answer name the whole address, with the key some have in it.
            "urllib3": {"level": "ERROR"},
        },
    }
