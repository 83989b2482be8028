"""TCP ports of the local run."""

import socket


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    # As servers do: a port whose last connections are only in TIME_WAIT is free.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1)
    except BaseException:
        listener.close()
        raise
    return listener


def why_unavailable(host: str, port: int) -> str | None:
    """Why a server could not listen there (the system's words), or None if it could."""
    try:
        _listener(host, port).close()
    except OSError as error:
        return error.strerror or str(error)
    return None


def free_port(preferred: int | None = None) -> int:
    """A port of 127.0.0.1 that nobody listens on, `preferred` if it is one. Somebody else may take
    it before it is used: who starts a server there tries again with another one."""
    if preferred and why_unavailable("127.0.0.1", preferred) is None:
        return preferred
    with _listener("127.0.0.1", 0) as listener:
        return int(listener.getsockname()[1])


def answers(port: int) -> bool:
    """Whether somebody accepts connections on that port of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
