"""tablib's XLSX, loaded with the first such file.

import-export loads it as Django starts, only to see whether it is there, and openpyxl with it: six
megabytes of every web process, most of which never see such a file.
"""

from typing import Any

from tablib.formats import registry


class XlsxOnceNeeded:
    """What tablib and import-export ask for without a file; all else is the format's own."""

    title = "xlsx"
    extensions = ("xlsx",)

    def __getattr__(self, name: str) -> Any:
        from tablib.formats._xlsx import XLSXFormat

        return getattr(XLSXFormat, name)


def register() -> None:
    """Put it in the place of tablib's; called before anything of import-export is loaded."""
    registry.register("xlsx", XlsxOnceNeeded())
