"""A name server that knows one name: Docker's, as the proxy asks it for the web servers."""

import socketserver
import struct
import threading

A, IN = 1, 1
OPT = b"\0\0\x29"
HEADER = struct.Struct("!6H")
# A pointer to the name in the question, type, class, seconds, length of the address.
RECORD = struct.Struct("!HHHIH")
QUESTION_AT = 0xC000 | HEADER.size
IS_ANSWER, IS_CUT, NO_SUCH_NAME = 0x8580, 0x0200, 3


class NameServer:
    """Answers with ``addresses``, which may change, on UDP ``port`` of 127.0.0.1."""

    def __init__(self, name: str, addresses: list[str]) -> None:
        self.addresses = addresses
        known = name.encode()

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                data, socket = self.request
                socket.sendto(outer.answer(data, known), self.client_address)

        outer = self
        self._server = socketserver.ThreadingUDPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def answer(self, query: bytes, known: bytes) -> bytes:
        """RFC 1035, section 4, for one question about an address.

        One that is longer than the asker says that they take (RFC 6891) is cut, as Docker does it.
        """
        end = query.index(b"\0", HEADER.size)
        question = query[HEADER.size : end + 5]
        name = query[HEADER.size + 1 : end]
        (kind,) = struct.unpack("!H", query[end + 1 : end + 3])
        addresses = self.addresses if name == known and kind == A else []
        flags = IS_ANSWER | (0 if name == known else NO_SUCH_NAME)
        more = query[end + 5 :]
        most = max(512, struct.unpack("!H", more[3:5])[0]) if more.startswith(OPT) else 512
        fit = (most - HEADER.size - len(question)) // (RECORD.size + 4)
        if len(addresses) > fit:
            flags, addresses = flags | IS_CUT, addresses[:fit]
        (number,) = struct.unpack("!H", query[:2])
        header = HEADER.pack(number, flags, 1, len(addresses), 0, 0)
        records = b"".join(
            RECORD.pack(QUESTION_AT, A, IN, 0, 4) + bytes(map(int, address.split(".")))
            for address in addresses
        )
        return header + question + records

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
