"""QR codes as pictures: black on white with the quiet zone scanners need, whatever is around."""

import io

import segno
from django.conf import settings

from fulfillment.codes.text import address
from purchases import mail

# Pixels, or units of an SVG, to a module of the code.
SCALE = 8


def symbol(text: str) -> segno.QRCode:
    """``text`` as a QR code; a seventh of it may be dirty or torn (level M, or better for free)."""
    return segno.make_qr(text, error="m")


def svg(text: str) -> bytes:
    """As large as the page wants it."""
    file = io.BytesIO()
    symbol(text).save(file, kind="svg", scale=SCALE, light="#fff", omitsize=True)
    return file.getvalue()


def png(text: str) -> bytes:
    file = io.BytesIO()
    symbol(text).save(file, kind="png", scale=SCALE)
    return file.getvalue()


def attachment(code: str, *, name: str) -> mail.Attachment:
    """A code as an e-mail carries it: mail programs show no SVG."""
    return mail.Attachment(name, "image/png", png(address(code, site=settings.FRONTEND_URL)))
