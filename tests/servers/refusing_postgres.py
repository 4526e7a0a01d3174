"""A server of PostgreSQL's protocol that refuses everybody, in words of the tests' choice."""

import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

ENCRYPTIONS = (struct.pack("!I", 80877103), struct.pack("!I", 80877104))


@contextmanager
def serving(code: str, severity: str, said: str, *, asks: bool) -> Iterator[int]:
    """Serve on a port of 127.0.0.1, which is yielded. With ``asks``, it refuses after it has asked for the password."""
    fields = {"S": severity, "V": "FATAL", "C": code, "M": said}
    error = b"".join(name.encode() + value.encode() + b"\0" for name, value in fields.items()) + b"\0"
    members = {"error": error, "asks": asks}
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), type("Handler", (_Handler,), members)) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


class _Handler(socketserver.StreamRequestHandler):
    error: bytes
    asks: bool

    def handle(self) -> None:
        while self._read(4)[:4] in ENCRYPTIONS:
            self.wfile.write(b"N")
        if self.asks:
            self._say(b"R", struct.pack("!I", 3))  # the password in clear text
            if not self.rfile.read(1):  # a client without a password has left
                return
            self._read(4)
        self._say(b"E", self.error)

    def _read(self, head: int) -> bytes:
        """Read the rest of a message that begins with its length."""
        began = self.rfile.read(head)
        if len(began) < head:
            return b""
        return self.rfile.read(struct.unpack("!I", began)[0] - head)

    def _say(self, kind: bytes, text: bytes) -> None:
        self.wfile.write(kind + struct.pack("!I", len(text) + 4) + text)
