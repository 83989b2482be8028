"""One way to log for Django, Celery and our apps: structlog, as JSON or readable in a terminal."""

import json
import logging
import re
import sys
from contextlib import suppress
from typing import Any, TextIO

import orjson
import structlog
from django.core.exceptions import ImproperlyConfigured

from offers.error_texts import traceback_of, without_quotes

STYLES = ("console", "json")


# Whoever has the address of bought content has the content; a code opens doors, and the link of a
# letter an account.
SECRET_ADDRESS = re.compile(
    r"(/(?:content|check-in|register/link|password/reset/[^\s/?]+)/)[^\s/?]+"
)


def without_secret_addresses(logger: Any, method: str, line: dict[str, Any]) -> dict[str, Any]:
    """A structlog processor: in what is said of requests, such addresses end early."""
    for key in ("event", "request"):
        if isinstance(line.get(key), str):
            line[key] = SECRET_ADDRESS.sub(r"\1…", line[key])
    return line


def without_rows(logger: Any, method: str, line: dict[str, Any]) -> dict[str, Any]:
    """A structlog processor: where errors are told, Celery's lines too, no row is quoted."""
    for key in ("event", "error", "detail"):
        if isinstance(line.get(key), str):
            line[key] = without_quotes(line[key])
    return line


def plain_traceback(exc_info: Any) -> str:
    """What ``traceback_of`` makes of what the logging libraries have in hand."""
    return traceback_of(exc_info[1])


class _Lines(structlog.BytesLogger):
    """Writes lines, our own past the standard library: at a quarter of the cost.

    Others' come through it, by ``_Handler``. All of one file share structlog's lock, so that no
    line is torn.
    """

    def msg(self, message: bytes) -> None:
        """Write a line; one that nobody takes is lost, and nothing else with it."""
        with suppress(OSError, ValueError):
            super().msg(message)

    debug = info = warning = error = critical = msg


class _Handler(logging.Handler):
    def __init__(self, lines: _Lines) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """Write what the standard library has to say."""
        try:
            self._lines.msg(self.format(record).encode(errors="backslashreplace"))
        except Exception:  # noqa: BLE001 - as its own handlers do: a line is no reason to fail
            self.handleError(record)


def _as_json(line: dict[str, Any], **options: Any) -> bytes:
    try:
        return orjson.dumps(line, **options)
    except TypeError:  # half of a surrogate pair, a number beyond 64 bits, or no JSON at all
        pass
    try:
        return json.dumps(line, **options).encode()
    except Exception:  # noqa: BLE001 - whatever was to be logged has happened: nothing may fail now
        return json.dumps({"event": str(line.get("event")), "unreadable": True}).encode()


def configure(*, level: str, style: str, stream: TextIO | None = None) -> dict[str, Any]:
    """Configure structlog and return Django's ``LOGGING``; called once, by the settings.

    Lines go to ``stream``, or else to standard error.

    The request id, bound by django-structlog's middleware, is on every line of a request, and
    travels to the tasks that the request wakes. Django's own lines, and Celery's, come through the
    standard library, and in a terminal ours too.
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
        without_rows,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    handler: dict[str, Any] = {"formatter": "structured"}
    if style == "json":
        # Now: Celery's worker replaces standard error by something that logs what is written to it.
        out = (stream or sys.stderr).buffer
        handler |= {"()": _Handler, "lines": _Lines(out)}
        render: list[Any] = [
            structlog.processors.ExceptionRenderer(plain_traceback),
            structlog.processors.JSONRenderer(),
        ]
        structlog.configure(
            processors=[*shared, *render[:-1], structlog.processors.JSONRenderer(_as_json)],
            wrapper_class=structlog.make_filtering_bound_logger(
                logging.getLevelNamesMapping()[level]
            ),
            logger_factory=lambda name=None: _Lines(out, name=name),
            cache_logger_on_first_use=True,
        )
    else:
        handler |= {"class": "logging.StreamHandler", "stream": stream or "ext://sys.stderr"}
        structlog.configure(
            processors=[
                structlog.stdlib.filter_by_level,
                *shared,
                structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
            ],
            logger_factory=structlog.stdlib.LoggerFactory(),
            cache_logger_on_first_use=True,
        )
        render = [
            structlog.dev.ConsoleRenderer(
                colors=False,
                exception_formatter=lambda out, exc_info: out.write(
                    "\n" + plain_traceback(exc_info)
                ),
            )
        ]
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
        "handlers": {"stderr": handler},
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
