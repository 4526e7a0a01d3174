"""A server of PostgreSQL's protocol that calls itself any version, and does nothing else."""

import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

ANSWERS = {b"P": b"1", b"B": b"2", b"D": b"n", b"E": b"C", b"C": b"3"}
"""The message that answers each message of a client, apart from those that end a round."""


@contextmanager
def serving(version: str) -> Iterator[int]:
    """Serve on a port of 127.0.0.1, which is yielded."""
    with socketserver.ThreadingTCPServer(
        ("127.0.0.1", 0), type("Handler", (_Handler,), {"version": version})
    ) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


class _Handler(socketserver.StreamRequestHandler):
    version: str

    def handle(self) -> None:
        while self._read(4, length_at=0)[4:8] in (struct.pack("!I", 80877103), struct.pack("!I", 80877104)):
            self.wfile.write(b"N")  # no TLS, no GSSAPI
        self._say(b"R", struct.pack("!I", 0))
        self._say(b"S", b"server_version\0" + self.version.encode() + b"\0")
        self._say(b"S", b"client_encoding\0UTF8\0")
        self._say(b"K", struct.pack("!II", 1, 1))
        self._say(b"Z", b"I")
        while message := self._read(5, length_at=1):
            kind = message[:1]
            if kind in ANSWERS:
                self._say(ANSWERS[kind], b"SET\0" if kind == b"E" else b"")
            elif kind == b"Q":
                self._say(b"C", b"SET\0")
            if kind in (b"Q", b"S"):
                self._say(b"Z", b"I")

    def _read(self, head: int, length_at: int) -> bytes:
        """Read one message, with its length. Empty means that the client has left."""
        began = self.rfile.read(head)
        if len(began) < head:
            return b""
        [length] = struct.unpack("!I", began[length_at : length_at + 4])
        return began + self.rfile.read(length - 4)

    def _say(self, kind: bytes, text: bytes) -> None:
        self.wfile.write(kind + struct.pack("!I", len(text) + 4) + text)
