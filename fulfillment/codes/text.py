"""The text of a code: made, read as people type it, shown so that they can type it."""

import secrets

# Crockford's Base32: no I, L, O or U, and who types one of the first three means 1 or 0.
# https://www.crockford.com/base32.html
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LOOK_ALIKES = str.maketrans("ILO", "110")
# 5 bits each: 60 in all.
LENGTH = 12
GROUP = 4


def new() -> str:
    """A code that nobody can guess. Unique as long as its table says so."""
    return "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))


def read(typed: str) -> str | None:
    """The code that somebody typed or pasted, or ``None`` if it can't be one.

    Case, spaces and hyphens don't matter; a whole address, as some scanners give it, will do.
    """
    last = typed.strip().rstrip("/").rpartition("/")[2]
    code = "".join(last.replace("-", " ").split()).upper().translate(LOOK_ALIKES)
    return code if len(code) == LENGTH and set(code) <= set(ALPHABET) else None


def spaced(code: str) -> str:
    """The code in groups, for people: ``7K3M-9QWX-YZ12``."""
    return "-".join(code[start : start + GROUP] for start in range(0, len(code), GROUP))


def address(code: str, *, site: str) -> str:
    """What a QR code says: where staff check it.

    ``site`` is the address of the pages; without one (the worker knows ``FRONTEND_URL`` only) it is
    the code alone, to be typed.
    """
    return f"{site}/check-in/{code}" if site else code
