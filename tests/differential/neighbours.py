"""Servers of others that tasks talk to, in threads of this process, which ends without asking them."""

import asyncio
import socket
import threading
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session

from differential.diary import record


def mail_server() -> int:
    """The port of a mail server that records what it is given."""
    listening = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=asyncio.run, args=(_serve_mail(listening),), daemon=True).start()
    return listening.getsockname()[1]


def web_server() -> int:
    """The port of a web server that records what is posted to it, and refuses what is posted to `/refused`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Recording)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


async def _serve_mail(listening: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(_Mailbox(), loop=loop, hostname="localhost"), sock=listening)
    await server.serve_forever()


class _Mailbox:
    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        mail = message_from_bytes(envelope.content or b"")
        record(f"mail server: {mail['Subject']} for {envelope.rcpt_tos}")
        return "250 OK"


class _Recording(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        record(f"web server: {self.path} {body.decode()}")
        match self.path:
            case "/refused":
                self.send_response(503, "on purpose: the hook is away")
            case _:
                self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing on stderr."""
