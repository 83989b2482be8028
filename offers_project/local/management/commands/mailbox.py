from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from offers_project.local.mailbox import letters


class Command(BaseCommand):
    help = "Print the e-mails of the local run, the newest last."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--last", type=int, default=10, help="so many (default: 10)")

    def handle(self, *args: Any, last: int, **options: Any) -> None:
        if letters.folder() is None:
            raise CommandError("E-mails don't go to files here: EMAIL_URL sends them elsewhere.")
        if last < 1:
            raise CommandError("Ask for at least one e-mail.")
        found = list(letters.newest(last))
        if not found:
            self.stdout.write("No e-mails yet.")
        for letter in reversed(found):
            attached = [f"Attached: {file.name} ({file.mimetype})\n" for file in letter.files]
            self.stdout.write(
                f"{'-' * 79}\n"
                f"Sent: {letter.sent_at:%Y-%m-%d %H:%M:%S} UTC\n"
                f"From: {letter.sender}\nTo: {letter.to}\nSubject: {letter.subject}\n"
                f"{''.join(attached)}\n{letter.text.strip()}\n"
            )
