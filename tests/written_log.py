"""The log as it is written in production, or for a terminal, to be read by a test."""

import io
import logging
import logging.config
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.conf import settings
from structlog._config import BoundLoggerLazyProxy

from offers_project.logging import configure


@contextmanager
def written_log(style: str = "json") -> Iterator[Callable[[], str]]:
    """Write the log in that style during the block; what is returned says what it says so far."""
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding="utf-8", write_through=True)
    root = logging.getLogger()
    before = root.handlers[:]
    logging.config.dictConfig(configure(level="INFO", style=style, stream=stream))
    _configure_loggers_again()
    try:
        yield lambda: written.getvalue().decode()
    finally:
        logging.config.dictConfig(configure(level=settings.LOG_LEVEL, style=settings.LOG_FORMAT))
        _configure_loggers_again()
        root.handlers[:] = before


def _configure_loggers_again() -> None:
    """Those of all modules; each otherwise stays as it was when it was first used."""
    for module in [*sys.modules.values()]:
        for found in [*vars(module).values()]:
            if type(found) is BoundLoggerLazyProxy:
                vars(found).pop("bind", None)
