"""Who calls the server, over real connections, and notes what comes back."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

from differential import diary
from differential.kit import THE_LAST_TASK

UNHEARD = "x-unheard"  # a header of requests that only the suite needs: what they bring about is not recorded
_PASSING = {"date", "server"}  # what differs between runs without anybody's doing


class Client:
    """One client with one kept-alive connection, as a browser has; a second request may come in while it streams."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.answers: list[dict[str, Any]] = []
        self._connect()

    def close(self) -> None:
        self._http.close()

    def reconnect(self) -> None:
        """Go on with a new connection, as clients have to when a server has failed: uvicorn closes the old one."""
        self.close()
        self._connect()

    def _connect(self) -> None:
        # Certificates are not needed, and loading them takes most of a short test.
        self._http = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", timeout=diary.TIMEOUT, verify=False, trust_env=False
        )

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response | None:
        """Send a request and note the answer, or that the connection broke."""
        asked = f"{method} {path}"
        try:
            response = self._http.request(method, path, **options)
        except httpx.TransportError as broken:
            self.answers.append({"asked": asked, "broken": type(broken).__name__})
            return None
        self._note(asked, response, response.text)
        return response

    @contextmanager
    def stream(self, method: str, path: str) -> Iterator[Iterator[str]]:
        """Send a request and hand out the pieces of the body as they come. Notes the answer as far as it was read."""
        read: list[str] = []
        with self._http.stream(method, path) as response:
            yield _noting(response.iter_text(), read)
        self._note(f"{method} {path}", response, "".join(read))

    @contextmanager
    def websocket(self, path: str) -> Iterator[ClientConnection]:
        with connect(f"ws://127.0.0.1:{self.port}{path}", proxy=None) as connection:
            yield connection

    def ask_and_leave(self, path: str) -> None:
        """Send a GET request and close the connection without reading the answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=diary.TIMEOUT) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())

    def say(self, what: str) -> None:
        """Note something that the client saw."""
        self.answers.append({"saw": what})

    def wait_for(self, *events: str) -> None:
        """Wait until the server has recorded all of the events."""
        diary.wait_until(lambda: set(events) <= set(diary.events()), f"{events}")

    def open_gate(self, name: str) -> None:
        diary.open_gate(name)

    def peek(self, path: str) -> Any:
        """The JSON at a path, asked for as often as needed: neither noted nor recorded."""
        return self._http.get(path, headers={UNHEARD: "yes"}).json()

    def add_the_last_task(self) -> None:
        """Have a task added behind all others, and wait until it has run. Not noted."""
        self.reconnect()
        self._http.post(THE_LAST_TASK).raise_for_status()
        diary.wait_until(lambda: diary.is_open(THE_LAST_TASK.strip("/")), "the last task")

    def _note(self, asked: str, response: httpx.Response, body: str) -> None:
        headers = {name: value for name, value in response.headers.items() if name not in _PASSING}
        self.answers.append({"asked": asked, "status": response.status_code, "headers": headers, "body": body})


def _noting(pieces: Iterator[str], read: list[str]) -> Iterator[str]:
    for piece in pieces:
        read.append(piece)
        yield piece
