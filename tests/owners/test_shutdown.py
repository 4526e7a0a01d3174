"""A deploy waits for no open stream, however many there are."""

import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from face.processes import TIMEOUT, Program, uvicorn, write_application

STREAMS = """
from afterwards import TaskRecord

tasks = Afterwards(app)

def anybody(task: TaskRecord) -> bool:
    return True

app.include_router(tasks.router(owner=anybody), prefix="/tasks")

@app.post("/later")
async def later(background_tasks: BackgroundTasks) -> str:
    return background_tasks.add_task(note.options(delay=3600), "later").id
"""

CLIENTS = 100


@contextmanager
def open_streams(server: Program, number: int) -> Iterator[list[socket.socket]]:
    """Browsers that follow a task which does not end soon."""
    id = server.post("/later").json()
    address = urlsplit(server.url)
    with ExitStack() as stack:
        streams: list[socket.socket] = []
        for _ in range(number):
            stream = socket.create_connection((address.hostname, address.port), timeout=TIMEOUT)
            stack.callback(stream.close)
            stream.sendall(f"GET /tasks/{id}/events HTTP/1.1\r\nHost: here\r\n\r\n".encode())
            streams.append(stream)
        for stream in streams:
            read_until(stream, b"event: status")
        yield streams


def read_until(stream: socket.socket, text: bytes) -> None:
    got = b""
    while text not in got:
        more = stream.recv(65536)
        assert more, f"it ended after {got!r}"
        got += more


def time_to_end(folder: Path, clients: int, *arguments: str) -> float:
    """Seconds from the signal to the end of the process, with so many streams open."""
    write_application(folder, STREAMS)
    with uvicorn(folder, *arguments) as server, open_streams(server, clients) as streams:
        begun = time.monotonic()
        server.signal(signal.SIGTERM)
        server.ends(within=15)
        took = time.monotonic() - begun
        for stream in streams:
            while got := stream.recv(65536):
                assert b"event:" not in got
    assert "ASGI callable" not in server.output, server.output
    return took


@pytest.mark.parametrize("arguments", [(), ("--workers", "2")], ids=["one process", "two processes"])
def test_a_server_ends_at_once_with_a_hundred_streams_open(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    took = {}
    for clients in (0, CLIENTS):
        folder = tmp_path / str(clients)
        folder.mkdir()
        took[clients] = time_to_end(folder, clients, *arguments)
    assert took[CLIENTS] < took[0] + 3, took


def test_a_client_that_reads_nothing_is_cut_off(tmp_path: Path) -> None:
    write_application(tmp_path, STREAMS)
    with uvicorn(tmp_path) as server, open_streams(server, 3):  # which are not read from now on
        server.signal(signal.SIGTERM)
        server.ends(within=15)


def test_a_server_without_a_lifespan_ends_too(tmp_path: Path) -> None:
    write_application(tmp_path, STREAMS)
    with uvicorn(tmp_path, "--lifespan", "off") as server, open_streams(server, 5):
        server.signal(signal.SIGTERM)
        server.ends(within=10)
