"""The ports that tests give to servers are one server's each."""

import socket
from collections.abc import Iterator

import pytest

from offers_project.local.ports import free_port
from tests import ports
from tests.ports import own_port


@pytest.fixture(autouse=True)
def _given_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    held: list[socket.socket] = []
    monkeypatch.setattr(ports, "_held", held)
    yield
    for one in held:
        one.close()


def test_port_that_was_given_out_is_not_given_out_again() -> None:
    given = {own_port() for _ in range(200)}
    assert len(given) == 200
    # Of the 14,000 that the kernel has by default: without the sockets, some would be among them.
    assert not given & {free_port() for _ in range(2000)}


@pytest.mark.parametrize("option", [socket.SO_REUSEADDR, socket.SO_REUSEPORT])
def test_own_port_refuses_until_its_server_listens(option: int) -> None:
    port = own_port()
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", port)) != 0
    with socket.socket() as server, socket.socket() as client:
        server.setsockopt(socket.SOL_SOCKET, option, 1)
        server.bind(("127.0.0.1", port))
        server.listen()
        assert client.connect_ex(("127.0.0.1", port)) == 0
        server.accept()[0].close()
