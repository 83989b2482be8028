"""Reading JSON from anybody: what the standard parser lets through or chokes on."""

import json
from collections.abc import Mapping
from typing import IO, Any

from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser


class CarefulJSONParser(JSONParser):
    """DRF's parser, which also refuses nesting without end and halves of surrogate pairs.

    The first exhausts Python's stack, the second is a string that can be neither stored nor
    answered with: both would be a 500.
    """

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the body's value, or raise ``ParseError``."""
        try:
            data = super().parse(stream, media_type, parser_context)
            json.dumps(data, ensure_ascii=False).encode()
        except RecursionError:
            raise ParseError("JSON parse error: nested too deeply.") from None
        except UnicodeEncodeError:
            raise ParseError("JSON parse error: a surrogate that stands alone.") from None
        return data
