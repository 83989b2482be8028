"""CSV files for spreadsheets: see ``offers.spreadsheet``, which the apps below use as well."""

from offers.spreadsheet import BYTE_ORDER_MARK, FORMULA, cell, response, table, uncell

__all__ = ["BYTE_ORDER_MARK", "FORMULA", "cell", "response", "table", "uncell"]
