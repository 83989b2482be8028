"""Where uploaded files lie: any of Django's storages, chosen by ``CONTENT_STORAGE``.

A name in the storage is random and says nothing of the file, the offer or the organization, and a
file never changes under its name: another upload is another name.
"""

import secrets
import unicodedata
from pathlib import PurePosixPath
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.files.storage import Storage, storages

LONGEST_NAME = 200


def content_storage() -> Storage:
    """The storage of the settings; a function, so that no migration remembers which it was.

    Called when the models are loaded, so that settings which make no storage stop the start.
    """
    try:
        return storages["content"]
    except (ImproperlyConfigured, TypeError, ValueError) as error:
        raise ImproperlyConfigured(
            f"CONTENT_STORAGE with CONTENT_STORAGE_OPTIONS makes no storage: {error}"
        ) from error


def random_name(instance: Any = None, file_name: str = "") -> str:
    """A name that can't be guessed; the file's own is in the row, the instance doesn't matter."""
    return secrets.token_hex(20)


def shown_name(uploaded: str) -> str:
    """The name that the file has for its buyers, whatever the browser of the uploader sent.

    No folders, no control characters, and none that turn the direction of writing around, behind
    which ``exe.fdp`` would hide. A name that is too long keeps its suffix.
    """
    name = PurePosixPath(uploaded.replace("\\", "/")).name
    name = unicodedata.normalize("NFC", name)
    name = "".join(character for character in name if character.isprintable()).strip(" .")
    suffix = PurePosixPath(name).suffix[:20]
    return f"{name.removesuffix(suffix)[: LONGEST_NAME - len(suffix)]}{suffix}" or "content"
