"""Ports for the servers that tests start."""

import socket

# Until this process ends: a server that is started again gets its port again.
_held: list[socket.socket] = []


def own_port() -> int:
    """A port of 127.0.0.1 on which nobody listens, and which nobody else is given.

    A port that was free a moment ago may be given out again before its server listens, and granian
    and HAProxy then share it without a word (``SO_REUSEPORT``): each answers some of the other's
    requests. So a socket is kept bound there, which doesn't listen: the kernel chooses the port for
    nobody else, while a server that asks for it gets it, if it sets ``SO_REUSEADDR`` as all do.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind(("127.0.0.1", 0))
    _held.append(held)
    return int(held.getsockname()[1])
