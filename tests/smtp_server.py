"""A mail server on a port of its own, for the tests of e-mails: it keeps what it is sent, answers
as it is told, and can hang, hang up, or have somebody killed in the middle."""

import asyncio
from collections.abc import Awaitable, Callable
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.ports import own_port

OK = "250 OK"
Step = Callable[[], Awaitable[None]]


class MailServer:
    """``letters`` are the messages it accepted, in order; ``connections`` who came for it."""

    def __init__(self) -> None:
        self.letters: list[EmailMessage] = []
        self.recipients: list[str] = []
        self.connections = 0
        # How many messages it takes in one session.
        self.most = 1000
        # Address -> the answer to its RCPT, or to the DATA that follows.
        self.at_rcpt: dict[str, str] = {}
        self.at_data: dict[str, str] = {}
        # Done before a message is accepted, after that (but before the answer), and at QUIT.
        self.before: Step | None = None
        self.after: Step | None = None
        self.at_quit: Step | None = None
        self.is_dropping = False
        # What NOOP is answered with; "" ends the connection instead.
        self.noop = OK
        self._controller = Controller(self, hostname="127.0.0.1", port=own_port())

    @property
    def port(self) -> int:
        return int(self._controller.port)

    @property
    def url(self) -> str:
        """What EMAIL_URL should be."""
        return f"smtp://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._controller.start()

    def stop(self) -> None:
        self._controller.stop()

    def subjects(self) -> list[str]:
        return [str(letter["Subject"]).strip() for letter in self.letters]  # unfolded

    # -- aiosmtpd's hooks --

    async def handle_EHLO(  # noqa: N802 - aiosmtpd's name
        self,
        server: SMTP,
        session: Session,
        envelope: Envelope,
        hostname: str,
        responses: list[str],
    ) -> list[str]:
        self.connections += 1
        session.host_name = hostname
        return responses

    async def handle_MAIL(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: Any
    ) -> str:
        session.given = getattr(session, "given", 0) + 1
        if session.given > self.most:
            return "421 4.7.0 Too many messages in this session"
        envelope.mail_from = address
        return OK

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: Any
    ) -> str:
        refusal = self.at_rcpt.get(address)
        if refusal is None:
            envelope.rcpt_tos.append(address)
        return refusal or OK

    async def handle_DATA(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        if self.before:
            await self.before()
        for address in envelope.rcpt_tos:
            if address in self.at_data:
                return self.at_data[address]
        content = envelope.content
        assert isinstance(content, bytes)
        letter = message_from_bytes(content, policy=policy.default)
        assert isinstance(letter, EmailMessage)
        self.letters.append(letter)
        self.recipients += envelope.rcpt_tos
        if self.after:
            await self.after()
        if self.is_dropping:
            server.transport.abort()
        return OK

    async def handle_NOOP(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, arg: str
    ) -> str:
        if not self.noop:
            server.transport.abort()
        return self.noop

    async def handle_QUIT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        if self.at_quit:
            await self.at_quit()
        return "221 Bye"


async def hang() -> None:
    """Longer than any test waits."""
    await asyncio.sleep(60)
