"""Numbers in what callers send, as JSON writes them.

DRF hands text to Python's ``int`` and ``Decimal``, which also take ``1_0`` for ten, ``1e2`` for a
hundred and digits of every script: a typing error would be an order.
"""

import re
from typing import Any

from rest_framework import serializers

PLAIN = re.compile(r"\s*-?[0-9]+(\.[0-9]+)?\s*")


class WholeNumber(serializers.IntegerField):
    """A JSON number without a fraction, or its digits as text (in a query string it is text)."""

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, str) and not PLAIN.fullmatch(data):
            self.fail("invalid")
        number: int = super().to_internal_value(data)
        return number


class DecimalNumber(serializers.DecimalField):
    """A decimal number as text, such as ``"50.00"``, or a JSON number."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, str) and not PLAIN.fullmatch(data):
            self.fail("invalid")
        return super().to_internal_value(data)
