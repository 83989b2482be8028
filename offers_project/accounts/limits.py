"""How many letters may be asked for: nobody's mailbox is to be flooded by us."""

from typing import Any

from offers.throttling import PerAddress, RateLimit
from offers_project.accounts.addresses import mailbox


class LettersPerMailbox(RateLimit):
    """Counts the letters of every kind to one mailbox, whoever asks for them."""

    group = "letters"
    setting = "LETTER_RATE_LIMIT"

    def key(self, request: Any) -> str:
        return mailbox(str(request.POST.get("email", "")))


class LettersPerAddress(PerAddress):
    group = "letters-address"
    setting = "LETTER_RATE_LIMIT_IP"
