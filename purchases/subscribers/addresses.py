"""Which addresses of the network may be called on behalf of an organization.

An endpoint's address is a stranger's wish, and we stand inside a network: nothing but public
addresses is called (server-side request forgery, OWASP's SSRF cheat sheet). ``requests-hardened``
looks a name up, refuses private addresses, and connects to the very address that it checked, so
that a name can't be changed in between; certificates are checked against the name all the same.
What it leaves out is here: addresses that Python calls public and nobody routes, names of which
only one address is private, and plain HTTP.
"""

import ipaddress
import socket
from typing import Any

from django.conf import settings
from requests_hardened.ip_filter import EXTRA_BLOCKED_NET_RANGES
from requests_hardened.ip_filter_adapter import IPFilterAdapter
from urllib3.exceptions import LocationParseError
from urllib3.util import Url, parse_url

from purchases.errors import AddressRefused

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# All that is in use of IPv6; the rest holds IPv4 in disguise and what was given up long ago:
# https://www.iana.org/assignments/ipv6-address-space
GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")


def check(url: str) -> None:
    """Look the address up, and raise ``AddressRefused`` with what to do unless it may be called.

    Called when an endpoint is saved and before each delivery, outside any transaction: a name
    server may take its time. With ``WEBHOOK_ALLOW_LOOPBACK`` this machine may be called, also
    without TLS.
    """
    parts = _parsed(url)
    found = _resolved(str(parts.host).strip("[]"), parts.port)
    if not all(map(is_allowed, found)):
        raise AddressRefused(
            f"{parts.host} is not on the public internet: use an address that anybody can reach."
        )
    if parts.scheme != "https" and not all(address.is_loopback for address in found):
        raise AddressRefused("Use an address that begins with https://.")


def _parsed(url: str) -> Url:
    """Taken apart by the same code that will connect to it."""
    try:
        parts = parse_url(url)
    except LocationParseError as error:
        raise AddressRefused("Write an address like https://example.com/hook.") from error
    schemes = ("https", "http") if settings.WEBHOOK_ALLOW_LOOPBACK else ("https",)
    if parts.scheme not in schemes or not parts.host:
        raise AddressRefused("Use an address that begins with https://.")
    if parts.auth is not None:
        raise AddressRefused(
            "Leave the user name and password out: events are signed, which tells they are ours."
        )
    if parts.port == 0:
        raise AddressRefused("There is no port 0.")
    return parts


def _resolved(host: str, port: int | None) -> list[Address]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise AddressRefused(f"{host} can't be found: check the spelling.") from error
    return [ipaddress.ip_address(where[0]) for *_, where in found]


def is_allowed(address: Address) -> bool:
    """Whether a connection to ``address`` may be opened."""
    # ::ffff:10.0.0.1 is 10.0.0.1
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_loopback:
        return bool(settings.WEBHOOK_ALLOW_LOOPBACK)
    if not address.is_global or address.is_multicast:
        return False
    if any(address in network for network in EXTRA_BLOCKED_NET_RANGES):
        return False
    return address.version == 4 or address in GLOBAL_UNICAST


class PinnedAdapter(IPFilterAdapter):
    """Connects to the address that was checked, as the library's does, with our rule on top."""

    def __init__(self, *, is_https: bool) -> None:
        super().__init__(is_https_proto=is_https, allow_loopback=settings.WEBHOOK_ALLOW_LOOPBACK)

    def build_connection_pool_key_attributes(self, *args: Any, **kwargs: Any) -> Any:
        """Where requests will connect to: the library puts the address there that it checked."""
        where, options = super().build_connection_pool_key_attributes(*args, **kwargs)
        if not is_allowed(ipaddress.ip_address(where["host"].strip("[]"))):
            raise AddressRefused(f"{where['host']} is not on the public internet.")
        return where, options
