"""What a front-end developer is told of each operation, by its operationId."""

from offers_project.openapi import of_offers, of_purchases
from offers_project.openapi.words import Operation

OPERATIONS: dict[str, Operation] = {**of_offers.OPERATIONS, **of_purchases.OPERATIONS}
