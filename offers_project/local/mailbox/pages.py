"""The e-mails of a local run in the browser, for whoever can reach it: nothing in them is real."""

from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.http import content_disposition_header
from django.views.decorators.clickjacking import xframe_options_sameorigin
from django.views.decorators.http import require_safe

from offers_project.local.mailbox import letters

MOST = 200
# A mail is as foreign as a page of somebody else's, though one that may bring its own styles.
SANDBOX = "allow-popups allow-popups-to-escape-sandbox"
POLICY = (
    f"sandbox {SANDBOX}; default-src 'none'; style-src 'unsafe-inline'; img-src data: cid:; "
    "form-action 'none'; frame-ancestors 'self'"
)


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    """All of them, the newest first."""
    shown = {"letters": letters.newest(MOST), "goes_elsewhere": letters.folder() is None}
    return render(request, "mailbox/index.html", shown)


@require_safe
def letter(request: HttpRequest, name: str) -> HttpResponse:
    """One of them: its text, its HTML in a frame, and what is attached."""
    return render(request, "mailbox/letter.html", {"letter": _found(name), "sandbox": SANDBOX})


@require_safe
@xframe_options_sameorigin
def html(request: HttpRequest, name: str) -> HttpResponse:
    """The HTML alone, under a policy of its own."""
    return _foreign(_found(name).html)


@require_safe
def attachment(request: HttpRequest, name: str, number: int) -> HttpResponse:
    """One attached file, to keep and not to open here; ``number`` counts from 1."""
    files = _found(name).files
    if not 1 <= number <= len(files):
        raise Http404
    file = files[number - 1]
    answer = _foreign(file.content, content_type=file.mimetype)
    answer["Content-Disposition"] = content_disposition_header(
        as_attachment=True, filename=file.name
    )
    return answer


def _found(name: str) -> letters.Letter:
    found = letters.find(name)
    if found is None:
        raise Http404
    return found


def _foreign(content: str | bytes, **kind: Any) -> HttpResponse:
    return HttpResponse(content, headers={"Content-Security-Policy": POLICY}, **kind)
