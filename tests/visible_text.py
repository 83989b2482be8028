"""What somebody reads on a page of ours, or hears: its text, without markup, addresses and scripts."""

import re
from html.parser import HTMLParser

# What isn't shown, and what has a language of its own.
UNSEEN = frozenset({"script", "style"})
READ_ALOUD = frozenset({"alt", "aria-label", "placeholder", "title"})


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._unseen = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._unseen += tag in UNSEEN
        self.texts += [value for name, value in attrs if name in READ_ALOUD and value]

    def handle_endtag(self, tag: str) -> None:
        self._unseen -= tag in UNSEEN

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.texts.append(data)


def visible_text(html: str) -> str:
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return re.sub(r"\s+", " ", " ".join(reader.texts)).strip()
