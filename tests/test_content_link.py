"""The link to bought content: whom it serves and how long, in which parts, and what it counts."""

import os
import re
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
import time_machine
from django.core.files.base import ContentFile
from django.core.files.storage import InMemoryStorage, storages
from django.db import IntegrityError, connection, transaction
from django.test import Client, override_settings
from django.utils import timezone

from fulfillment import delivery
from fulfillment.digital import content, links
from fulfillment.digital.errors import ContentNotStored
from fulfillment.digital.models import DigitalContent, DigitalDelivery
from fulfillment.digital.pages import BLOCK
from fulfillment.digital.storage import shown_name
from fulfillment.models import Fulfillment
from purchases import refund_requests
from tests.conftest import at_once
from tests.digital_content import BYTES, content_offer, delivered, offer_with_file
from tests.factories import MembershipFactory
from tests.service_processes import Processes, own_database_url
from tests.written_log import written_log

pytestmark = pytest.mark.django_db(transaction=True)

SIZE = len(BYTES)
RANGES = [
    # header, start, end (without), or None for the whole
    ("bytes=0-99", (0, 100)),
    ("bytes=100-", (100, SIZE)),
    (f"bytes=100-{SIZE * 2}", (100, SIZE)),
    (f"bytes={SIZE - 1}-", (SIZE - 1, SIZE)),
    ("bytes=-10", (SIZE - 10, SIZE)),
    (f"bytes=-{SIZE * 2}", (0, SIZE)),
    (f"bytes=0-{'9' * 5000}", (0, SIZE)),
    (f"bytes={'0' * 30}7-9", (7, 10)),
    (f"bytes={BLOCK - 1}-{BLOCK}", (BLOCK - 1, BLOCK + 1)),
    (f"bytes=5-{BLOCK * 2 + 5}", (5, BLOCK * 2 + 6)),
    ("BYTES=0-0", (0, 1)),
    ("bytes=, 1-2 ,", (1, 3)),
    ("bytes=0-1,5-6", None),
    ("bytes=9-5", None),
    ("bytes=-", None),
    ("bytes=", None),
    ("bytes", None),
    ("bytes=a-b", None),
    ("bytes=1 - 2", None),
    ("bytes=-1-2", None),
    ("bytes=٣-٤", None),
    ("seconds=1-2", None),
    ("", None),
]
UNSATISFIABLE = [f"bytes={SIZE}-", f"bytes={'9' * 30}-", "bytes=-0", f"bytes={SIZE}-{SIZE + 1}"]


def link_to(fulfillment: Fulfillment) -> str:
    return f"/content/{links.token_for(fulfillment.pk)}"


def status(answer: Any) -> int:
    """Its status; the answer is not read any further."""
    answer.close()
    return int(answer.status_code)


def downloads() -> int:
    return DigitalDelivery.objects.get().downloads


@pytest.fixture
def bought() -> Fulfillment:
    return delivered(offer_with_file())


@pytest.fixture
def link(bought: Fulfillment) -> str:
    return link_to(bought)


# -- In parts -------------------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The link on a real web server, as production runs it."""
    shop = Processes(
        tmp_path, DATABASE_URL=own_database_url(), CONTENT_DIR=os.environ["CONTENT_DIR"]
    )
    try:
        shop.start_web(workers=1)
        shop.wait_until_up()
        yield shop.url + link_to(delivered(offer_with_file()))
    finally:
        shop.stop()


def test_real_server_sends_exactly_the_bytes_that_were_asked_for(served: str) -> None:
    with requests.Session() as session:
        session.trust_env = False
        whole = session.get(served)
        assert (whole.status_code, whole.content) == (200, BYTES)
        assert whole.headers["Accept-Ranges"] == "bytes"
        for header, part in RANGES:
            if not header.isascii():
                continue
            answer = session.get(served, headers={"Range": header})
            if part is None:
                assert (answer.status_code, answer.content) == (200, BYTES), header
                continue
            start, end = part
            assert (answer.status_code, answer.content) == (206, BYTES[start:end]), header
            assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{SIZE}"
            assert answer.headers["Content-Length"] == str(end - start)
        head = session.head(served, headers={"Range": "bytes=5-9"})
        assert (head.status_code, head.headers["Content-Length"]) == (200, str(SIZE))
        # A download that is cut off in the middle is taken up again, as curl and browsers do.
        with session.get(served, stream=True) as cut:
            first = next(cut.iter_content(70_000))
        rest = session.get(
            served,
            headers={"Range": f"bytes={len(first)}-", "If-Range": whole.headers["ETag"]},
        )
        assert first + rest.content == BYTES


@pytest.mark.parametrize(("header", "part"), RANGES, ids=[h[:20] for h, _ in RANGES])
def test_range_is_what_the_rfc_says(
    client: Client, link: str, header: str, part: tuple[int, int] | None
) -> None:
    answer = client.get(link, headers={"Range": header})
    start, end = part or (0, SIZE)
    assert answer.getvalue() == BYTES[start:end]
    assert answer.status_code == (206 if part else 200)
    assert answer.headers.get("Content-Range") == (
        f"bytes {start}-{end - 1}/{SIZE}" if part else None
    )
    assert downloads() == (1 if start == 0 else 0)


@pytest.mark.parametrize("header", UNSATISFIABLE, ids=[header[:20] for header in UNSATISFIABLE])
def test_range_behind_the_end_is_refused_with_the_size(
    client: Client, link: str, header: str
) -> None:
    answer = client.get(link, headers={"Range": header})
    assert (answer.status_code, answer.content) == (416, b"")
    assert answer.headers["Content-Range"] == f"bytes */{SIZE}"
    assert downloads() == 0


@pytest.mark.parametrize(
    ("header", "status"), [(None, 200), ("bytes=-5", 200), ("bytes=0-", 416), ("bytes=-0", 416)]
)
def test_empty_file_is_sent_whole_or_not_at_all(
    client: Client, header: str | None, status: int
) -> None:
    link = link_to(delivered(offer_with_file(b"", "empty.txt")))
    answer = client.get(link, headers={"Range": header} if header else {})
    assert (answer.status_code, answer.getvalue()) == (status, b"")


def test_if_range_gives_the_part_of_the_same_version_only(
    client: Client, bought: Fulfillment, link: str
) -> None:
    before = client.get(link)
    etag, modified = before.headers["ETag"], before.headers["Last-Modified"]
    before.close()

    def part_of(if_range: str) -> int:
        answer = client.get(link, headers={"Range": "bytes=10-19", "If-Range": if_range})
        assert len(answer.getvalue()) == (10 if answer.status_code == 206 else len(now))
        return int(answer.status_code)

    now = BYTES
    assert [part_of(value) for value in (etag, modified)] == [206, 206]
    # A weak tag, another one, another time and nonsense are not the version that we have.
    others = (f"W/{etag}", '"other"', "Mon, 01 Jan 2001 00:00:00 GMT", "yesterday")
    assert [part_of(value) for value in others] == [200] * 4

    now = b"another file, and a longer one than that"
    with time_machine.travel(timezone.now() + timedelta(minutes=1)):
        content.put_file(bought.purchase.offer_id, ContentFile(now, "b.txt"), now=timezone.now())
    assert [part_of(value) for value in (etag, modified)] == [200, 200]


def test_preconditions_are_kept(client: Client, link: str) -> None:
    etag = client.head(link).headers["ETag"]
    assert status(client.get(link, headers={"If-None-Match": etag})) == 304
    assert status(client.get(link, headers={"If-Match": '"other"'})) == 412
    assert downloads() == 0


# -- What is counted ------------------------------------------------------------------------------


def test_one_download_is_counted_however_often_it_is_continued(client: Client, link: str) -> None:
    client.head(link)
    assert downloads() == 0
    for header in ("bytes=0-", "bytes=1000-", "bytes=-10", "bytes=5-5"):
        client.get(link, headers={"Range": header}).close()
    assert downloads() == 1
    counted = DigitalDelivery.objects.get().last_downloaded_at
    assert counted is not None
    client.get(link).close()
    assert downloads() == 2
    assert DigitalDelivery.objects.get().last_downloaded_at > counted


def test_downloads_at_the_same_time_are_all_counted(link: str) -> None:
    answers = at_once([lambda: Client().get(link).getvalue() == BYTES for _ in range(8)])
    assert answers == [True] * 8
    assert downloads() == 8


# -- Whom it serves, and how long -----------------------------------------------------------------


@override_settings(CONTENT_LINK_HOURS=2)
def test_link_expires_and_the_purchase_has_a_new_one(client: Client, client_of: Any) -> None:
    start = timezone.now().replace(microsecond=0)
    with time_machine.travel(start, tick=False):
        fulfillment = delivered(offer_with_file())
        link = link_to(fulfillment)
    with time_machine.travel(start + timedelta(hours=2), tick=False):
        assert status(client.get(link)) == 200
    with time_machine.travel(start + timedelta(hours=2, seconds=2), tick=False):
        expired = client.get(link)
        assert expired.status_code == 403
        assert "expired" in expired.content.decode()
        assert 'href="/purchases"' in expired.content.decode()
        shown = client_of(fulfillment.purchase.user).get(
            f"/api/v1/purchases/{fulfillment.purchase_id}/"
        )
        fresh = shown.json()["fulfillment"]["content_url"]
        assert status(client.get(fresh)) == 200
    assert downloads() == 2


def test_each_look_at_the_purchase_has_a_link_of_its_own(client_of: Any) -> None:
    fulfillment = delivered(offer_with_file())
    seen = set()
    for second in range(2):
        with time_machine.travel(timezone.now() + timedelta(seconds=second), tick=False):
            shown = client_of(fulfillment.purchase.user).get(
                f"/api/v1/purchases/{fulfillment.purchase_id}/"
            )
            seen.add(shown.json()["fulfillment"]["content_url"])
    assert len(seen) == 2


def test_tampered_link_is_a_page_that_helps(client: Client, bought: Fulfillment, link: str) -> None:
    other = delivered(bought.purchase.offer)
    stolen = link.replace(bought.pk.hex, other.pk.hex)
    assert stolen != link
    for wrong in (stolen, link[:-1], f"{link}x", "/content/x", f"/content/{bought.pk.hex}"):
        answer = client.get(wrong)
        assert answer.status_code == 404
        assert "from your purchase again" in answer.content.decode()
    foreign = links.signing.TimestampSigner(sep=".", salt="other").sign(bought.pk.hex)
    assert status(client.get(f"/content/{foreign}")) == 404


def test_refund_and_revocation_close_links_made_before(
    client: Client, bought: Fulfillment, link: str
) -> None:
    staff = MembershipFactory(organization=bought.purchase.event.organization).user
    revoked = delivered(bought.purchase.offer)
    link_of_revoked = link_to(revoked)
    assert status(client.get(link_of_revoked)) == 200
    delivery.revoke(revoked.pk, reason="shared", now=timezone.now(), source="admin")
    refund_requests.request(
        purchase_id=bought.purchase_id, actor=staff, source="admin", now=timezone.now()
    )
    for address, said in ((link, "on its way back"), (link_of_revoked, "by the organizer")):
        for method in (client.get, client.head):
            answer = method(address, headers={"Range": "bytes=5-"})
            assert answer.status_code == 403
        assert said in client.get(address).content.decode()


def test_refund_between_the_look_and_the_first_byte_still_counts(
    client: Client, bought: Fulfillment, link: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = links.opened_by

    def and_then_it_is_revoked(token: str) -> DigitalDelivery:
        found = look(token)
        delivery.revoke(bought.pk, reason="", now=timezone.now(), source="admin")
        return found

    monkeypatch.setattr(links, "opened_by", and_then_it_is_revoked)
    assert status(client.get(link)) == 403
    assert downloads() == 0


def test_content_taken_away_is_said_on_the_page(client: Client, bought: Fulfillment) -> None:
    link = link_to(bought)
    content.remove_file(bought.purchase.offer_id)
    answer = client.get(link)
    assert answer.status_code == 404
    assert "nothing to open" in answer.content.decode()


def test_only_looking_is_possible(client: Client, link: str) -> None:
    assert client.post(link).status_code == 405


# -- An address instead of a file -----------------------------------------------------------------


def test_address_is_led_to_after_the_check(client: Client) -> None:
    offer = content_offer()
    DigitalContent.objects.create(offer=offer, url="https://video.example/watch?v=1&x=é")
    fulfillment = delivered(offer)
    link = link_to(fulfillment)
    assert client.head(link).status_code == 302
    assert downloads() == 0
    answer = client.get(link)
    assert (answer.status_code, answer.url) == (302, "https://video.example/watch?v=1&x=%C3%A9")
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert "no-store" in answer.headers["Cache-Control"]
    assert downloads() == 1
    delivery.revoke(fulfillment.pk, reason="", now=timezone.now(), source="admin")
    closed = client.get(link)
    assert closed.status_code == 403
    assert "video.example" not in closed.content.decode()


# -- What the answer says -------------------------------------------------------------------------

KEPT_PRIVATE = {"Cache-Control": "private, no-store", "Referrer-Policy": "no-referrer"}


def test_nothing_keeps_or_shows_or_runs_what_is_sent(client: Client) -> None:
    script = b"<script>alert(document.domain)</script>"
    link = link_to(delivered(offer_with_file(script, "page.html")))
    for answer in (client.get(link), client.head(link)):
        headers = answer.headers
        assert headers.items() >= KEPT_PRIVATE.items()
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Content-Type"] == "application/octet-stream"
        assert headers["Content-Disposition"] == 'attachment; filename="page.html"'
        assert "sandbox" in headers["Content-Security-Policy"]
        assert "'self'" not in headers["Content-Security-Policy"]
        assert answer.cookies == {}
        answer.close()
    for refused in (client.get(f"{link}x"), client.get(link, headers={"Range": "bytes=999-"})):
        assert refused.headers.items() >= KEPT_PRIVATE.items()


@pytest.mark.parametrize(
    ("uploaded", "shown", "header"),
    [
        ("a b.pdf", "a b.pdf", 'filename="a b.pdf"'),
        ('a"b;c.pdf', 'a"b;c.pdf', 'filename="a\\"b;c.pdf"'),
        ("../../etc/passwd", "passwd", 'filename="passwd"'),
        ("C:\\talks\\one.zip", "one.zip", 'filename="one.zip"'),
        ("x\r\nSet-Cookie: a=b.txt", "xSet-Cookie: a=b.txt", 'filename="xSet-Cookie: a=b.txt"'),
        ("Vorträge 🎉.zip", "Vorträge 🎉.zip", "filename*=utf-8''Vortr%C3%A4ge%20%F0%9F%8E%89.zip"),
        ("talk\u202efdp.exe", "talkfdp.exe", 'filename="talkfdp.exe"'),
        (f"{'x' * 300}.zip", f"{'x' * 196}.zip", f'filename="{"x" * 196}.zip"'),
        ("\x00", "content", 'filename="content"'),
        ("..", "content", 'filename="content"'),
    ],
    ids=str,
)  # fmt: skip
def test_file_has_the_uploaders_name_however_hostile(
    client: Client, uploaded: str, shown: str, header: str
) -> None:
    assert shown_name(uploaded) == shown
    offer = offer_with_file()
    DigitalContent.objects.update(file_name=shown)
    answer = client.head(link_to(delivered(offer)))
    assert answer.headers["Content-Disposition"] == f"attachment; {header}"


def test_place_in_the_storage_is_never_told(client: Client, client_of: Any) -> None:
    fulfillment = delivered(offer_with_file())
    name = DigitalContent.objects.get().file.name or ""
    assert re.fullmatch("[0-9a-f]{40}", name)
    user = fulfillment.purchase.user
    browser = Client()
    browser.force_login(user)
    answer = client.get(link_to(fulfillment))
    said = [
        str(dict(answer.headers)),
        client_of(user).get(f"/api/v1/purchases/{fulfillment.purchase_id}/").content.decode(),
        browser.get(f"/purchases/{fulfillment.purchase_id}").content.decode(),
    ]
    answer.close()
    for text in said:
        assert name not in text
        assert os.environ["CONTENT_DIR"] not in text


@pytest.mark.parametrize("style", ["json", "console"])
def test_log_does_not_have_the_link(client: Client, link: str, style: str) -> None:
    with written_log(style) as log:
        client.get(link).close()
        Path(DigitalContent.objects.get().file.path).unlink()
        assert status(client.get(link)) == 503
        said = log()
    assert re.search(r"GET /content/(…|\\u2026)", said)
    assert link.removeprefix("/content/") not in said
    assert "content_out_of_reach" in said


# -- The storage ----------------------------------------------------------------------------------


class Remote(InMemoryStorage):
    """As one behind a network: no paths, no addresses, and never while a connection is held."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def _note(self, what: str) -> None:
        assert connection.connection is None, what
        self.asked.append(what)

    def open(self, name: str, mode: str = "rb") -> Any:
        self._note("open")
        return super().open(name, mode)

    def size(self, name: str) -> int:
        self._note("size")
        return super().size(name)

    def save(self, name: str | None, content: Any, max_length: int | None = None) -> str:
        self._note("save")
        return super().save(name, content, max_length)

    def delete(self, name: str) -> None:
        self._note("delete")
        super().delete(name)

    def url(self, name: str | None) -> str:
        raise NotImplementedError


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Remote:
    storage = Remote()
    monkeypatch.setattr(DigitalContent._meta.get_field("file"), "storage", storage)
    return storage


def test_any_storage_will_do_and_no_connection_is_held_meanwhile(
    client: Client, remote: Remote
) -> None:
    offer = offer_with_file()
    link = link_to(delivered(offer))
    answer = client.get(link, headers={"Range": "bytes=5-14"})
    assert connection.connection is None
    assert answer.getvalue() == BYTES[5:15]
    assert client.head(link).headers["Content-Length"] == str(SIZE)
    content.put_file(offer.pk, ContentFile(b"new", "new.txt"), now=timezone.now())
    content.remove_file(offer.pk)
    assert remote.asked == ["save", "open", "size", "save", "delete", "delete"]


def test_connection_is_given_back_before_the_first_byte(client: Client, link: str) -> None:
    answer = client.get(link)
    assert connection.connection is None
    assert answer.getvalue() == BYTES
    assert connection.connection is None


@pytest.mark.parametrize("blocks", [0, 1])
def test_file_is_closed_when_the_reader_goes_away(
    client: Client, link: str, blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, opened = storages["content"], []
    open_really = storage.open
    monkeypatch.setattr(
        storage, "open", lambda *args: opened.append(open_really(*args)) or opened[0]
    )
    answer = client.get(link)
    for _ in range(blocks):
        assert next(answer.streaming_content) == BYTES[:BLOCK]
    assert not opened[0].closed
    answer.close()
    assert opened[0].closed


def test_file_that_is_gone_is_an_alert_and_a_503(
    client: Client, link: str, caplog: pytest.LogCaptureFixture
) -> None:
    Path(DigitalContent.objects.get().file.path).unlink()
    for method in (client.get, client.head):
        answer = method(link)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "60")
    assert "content_out_of_reach" in caplog.text
    assert downloads() == 0


def test_files_are_nobody_elses(link: str) -> None:
    path = Path(DigitalContent.objects.get().file.path)
    assert path.parent == Path(os.environ["CONTENT_DIR"])
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    assert oct(path.parent.stat().st_mode & 0o777) == "0o700"


def test_another_file_takes_the_place_of_the_first_which_is_deleted(
    client: Client, bought: Fulfillment, link: str
) -> None:
    first = Path(DigitalContent.objects.get().file.path)
    content.put_file(bought.purchase.offer_id, ContentFile(b"new", "new.txt"), now=timezone.now())
    assert not first.exists()
    assert client.get(link).getvalue() == b"new"


def test_upload_that_the_database_refuses_leaves_no_file(remote: Remote) -> None:
    nobody = Fulfillment().pk  # the id of no offer
    with pytest.raises(IntegrityError):
        content.put_file(nobody, ContentFile(b"x", "x.txt"), now=timezone.now())
    assert remote.asked == ["save", "delete"]
    assert remote.listdir("") == ([], [])


def test_upload_that_the_storage_refuses_changes_nothing(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer = offer_with_file()
    before = DigitalContent.objects.values().get()
    monkeypatch.setattr(remote, "save", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ContentNotStored):
        content.put_file(offer.pk, ContentFile(b"x", "x.txt"), now=timezone.now())
    assert DigitalContent.objects.values().get() == before


def test_no_storage_is_asked_within_a_transaction() -> None:
    offer = content_offer()
    with transaction.atomic(), pytest.raises(RuntimeError):
        content.put_file(offer.pk, ContentFile(b"x", "x.txt"), now=timezone.now())


def test_uploads_at_the_same_time_leave_one_file_and_its_row() -> None:
    offer = content_offer()
    gate = threading.Barrier(4)

    def upload(number: int) -> None:
        gate.wait(10)
        content.put_file(offer.pk, ContentFile(b"%d" % number, f"{number}.txt"), now=timezone.now())

    def stored() -> set[str]:
        return {path.name for path in Path(os.environ["CONTENT_DIR"]).glob("*")}

    before = stored()
    assert at_once([lambda n=n: upload(n) for n in range(4)]) == [None] * 4
    row = DigitalContent.objects.get()
    with row.file.open() as file:
        assert row.file_name == f"{file.read().decode()}.txt"
    assert stored() - before == {row.file.name}
