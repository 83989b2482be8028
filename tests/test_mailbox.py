"""The e-mails of a local run: in the browser, in the terminal, and nowhere else."""

import io
from pathlib import Path
from typing import Any

import pytest
from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from offers_project.local.mailbox import letters
from tests.test_health import manage
from tests.test_security import Inline, policy

READ_SETTINGS = """
from django.conf import settings
from django.urls import Resolver404, resolve
print(settings.EMAIL_BACKEND)
try:
    resolve("/mail/")
except Resolver404:
    print("no mailbox")
"""
TEXT = "Look: http://x.example/a\n\nBye <b>"


@pytest.fixture
def folder(tmp_path: Path, settings: Any) -> Path:
    settings.EMAIL_BACKEND = "offers_project.local.mailbox.backend.EmailBackend"
    settings.EMAIL_FILE_PATH = str(tmp_path / "mail")
    return tmp_path / "mail"


def post(subject: str, **more: Any) -> None:
    html = more.pop("html", "")
    message = EmailMultiAlternatives(
        subject=subject,
        body="Look: http://x.example/a\n\nBye <b>",
        to=["Ana <a@b.example>"],
        **more,
    )
    if html:
        message.attach_alternative(html, "text/html")
    message.send()


def read(path: str, status: int = 200) -> str:
    answer = Client().get(path)
    assert answer.status_code == status
    return answer.content.decode()


def address(name: str, *more: Any) -> str:
    [letter] = letters.newest(1)
    return reverse(f"mailbox-{name}", args=(letter.name, *more))


def test_each_message_is_a_file_and_the_newest_is_listed_first(folder: Path) -> None:
    for subject in ("One", "Zwei: Grüße", "<Three>"):
        post(subject)
    assert len(list(folder.iterdir())) == 3
    page = read("/mail/")
    assert page.index("&lt;Three&gt;") < page.index("Zwei: Grüße") < page.index("One")
    assert "Ana &lt;a@b.example&gt;" in page
    assert " UTC" in page
    assert Inline(page).found == []


def test_message_page_has_the_text_a_frame_with_the_html_and_the_attachments(folder: Path) -> None:
    evil = "<h1 style='color:red'>Hi</h1><script>alert(1)</script>"
    post("Hello", html=evil, attachments=[("ä b.ics", "BEGIN:VCALENDAR\r\n", "text/calendar")])
    page = read(address("letter"))
    assert "Bye &lt;b&gt;" in page
    assert 'href="http://x.example/a"' in page
    assert f'src="{address("html")}"' in page
    assert 'sandbox="allow-popups allow-popups-to-escape-sandbox"' in page
    assert Inline(page).found == []

    frame = Client().get(address("html"))
    assert frame.content.decode().strip() == evil
    assert frame.headers["X-Frame-Options"] == "SAMEORIGIN"
    said = policy(frame)
    assert "allow-scripts" not in said["sandbox"]
    assert "allow-same-origin" not in said["sandbox"]
    assert said["default-src"] == ["'none'"]
    assert said["img-src"] == ["data:", "cid:"]

    file = Client().get(address("attachment", 1))
    assert file.content == b"BEGIN:VCALENDAR\r\n"
    assert file.headers["Content-Type"] == "text/calendar"
    assert file.headers["Content-Disposition"].startswith("attachment; filename*=utf-8''%C3%A4")
    assert "sandbox" in policy(file)


def test_message_of_text_alone_has_no_frame(folder: Path) -> None:
    EmailMessage("Plain", "Text", to=["a@b.example"]).send()
    assert "<iframe" not in read(address("letter"))
    assert read(address("html")) == ""


def test_what_is_not_there_is_not_found(folder: Path) -> None:
    assert "There are none yet" in read("/mail/")
    post("Hello")
    (folder.parent / "secret.eml").write_text("Subject: secret\n\n")
    for path in ("x", "x/html", "x/1", "..%2Fsecret", "%2e%2e/secret", "x" * 3000):
        read(f"/mail/{path}", status=404)
    for number in (0, 1, 10**30):
        read(address("attachment", number), status=404)
    assert Client().post("/mail/").status_code == 405


def test_folder_that_somebody_dropped_odd_files_into_can_be_read(folder: Path) -> None:
    post("Hello")
    (folder / "empty.eml").write_bytes(b"")
    (folder / "odd.eml").write_bytes(b"\xff\xfe\x00\nSubject: =?x-none?Q?=FF?=\n\n\xff\xff")
    (folder / "from-before.log").write_text("not a message of ours")
    assert "Hello" in read("/mail/")
    for name in ("empty", "odd"):
        read(f"/mail/{name}")


def test_command_prints_the_newest_last(folder: Path) -> None:
    out = io.StringIO()
    call_command("mailbox", stdout=out)
    assert "No e-mails yet." in out.getvalue()
    for number in range(4):
        post(f"Number {number}", attachments=[("a.txt", "a", "text/plain")])
    out = io.StringIO()
    call_command("mailbox", "--last", "2", stdout=out)
    said = out.getvalue()
    assert "Number 1" not in said
    assert said.index("Number 2") < said.index("Number 3")
    assert "To: Ana <a@b.example>\n" in said
    assert "Attached: a.txt (text/plain)\n" in said
    assert "Bye <b>" in said
    with pytest.raises(CommandError, match="at least one"):
        call_command("mailbox", "--last", "0")


def test_run_that_sends_its_mail_elsewhere_says_so() -> None:
    assert "EMAIL_URL sends the e-mails of this run elsewhere." in read("/mail/")
    with pytest.raises(CommandError, match="EMAIL_URL"):
        call_command("mailbox")


@pytest.mark.parametrize(
    ("local", "said"),
    [
        ("1", "offers_project.local.mailbox.backend.EmailBackend\n"),
        ("0", "django.core.mail.backends.filebased.EmailBackend\nno mailbox\n"),
    ],
)
def test_only_a_local_run_has_a_mailbox(local: str, said: str) -> None:
    ran = manage(
        *("shell", "--no-imports", "-c", READ_SETTINGS),
        LOCAL_RUN=local,
        EMAIL_URL="filemail:////tmp/mail",
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == said
