"""The proxy makes exactly the trouble that it was told to make."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from chaos.server import wait_until
from servers.proxy import Cut, Forward, Hold, Proxy, Refuse, Swallow

TIMEOUT = 20.0
A_MOMENT = 0.2  # seconds in which nothing must arrive


class Echo(socketserver.ThreadingTCPServer):
    """Answers with what it is sent, and remembers it."""

    daemon_threads = True

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.open = 0
        super().__init__(("127.0.0.1", 0), Echoing)


class Echoing(socketserver.BaseRequestHandler):
    server: Echo

    def handle(self) -> None:
        self.server.open += 1
        try:
            while data := self.request.recv(1000):
                self.server.heard.append(data)
                self.request.sendall(data)
        except OSError:
            pass
        finally:
            self.server.open -= 1


@pytest.fixture
def echo() -> Iterator[Echo]:
    with Echo() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxy(echo.server_address[1], seed=1) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: Proxy) -> Iterator[socket.socket]:
    with closing(connect(proxy)) as client:
        assert say(client, b"hello") == b"hello"
        yield client


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=TIMEOUT)


def say(client: socket.socket, data: bytes) -> bytes:
    client.sendall(data)
    return client.recv(1000)


def hears_nothing(client: socket.socket) -> bool:
    client.settimeout(A_MOMENT)
    try:
        return not client.recv(1000) and False
    except TimeoutError:
        return True
    finally:
        client.settimeout(TIMEOUT)


def test_it_passes_on_and_delays(proxy: Proxy, client: socket.socket) -> None:
    proxy.switch(Forward(0.001, 0.002))
    assert say(client, b"later") == b"later"


def test_what_is_held_up_arrives_later(proxy: Proxy, client: socket.socket, echo: Echo) -> None:
    proxy.switch(Hold())
    client.sendall(b"one")
    with closing(connect(proxy)) as another:
        another.sendall(b"two")
        assert hears_nothing(client) and hears_nothing(another)
        assert echo.heard == [b"hello"]
        proxy.switch(Forward())
        assert client.recv(1000) == b"one"
        assert another.recv(1000) == b"two"


def test_the_servers_last_words_arrive() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        Proxy(listening.getsockname()[1]) as proxy,
        closing(connect(proxy)) as client,
    ):
        server, _ = listening.accept()
        server.sendall(b"good bye")
        server.close()
        assert client.recv(1000) == b"good bye"
        assert client.recv(1000) == b""


def test_a_reset_is_told_to_both_ends(proxy: Proxy, client: socket.socket, echo: Echo) -> None:
    proxy.reset()
    with pytest.raises(ConnectionResetError):
        client.recv(1000)
    wait_until(lambda: echo.open == 0, "the server to notice")
    with closing(connect(proxy)) as another:
        assert say(another, b"again") == b"again"


def test_half_open_the_server_is_told_and_the_client_is_not(proxy: Proxy, client: socket.socket, echo: Echo) -> None:
    proxy.half_open()
    wait_until(lambda: echo.open == 0, "the server to notice")
    client.sendall(b"anybody there?")
    assert hears_nothing(client)
    assert echo.heard == [b"hello"]
    with closing(connect(proxy)) as another:
        assert say(another, b"again") == b"again"


def test_lost_nobody_is_told(proxy: Proxy, client: socket.socket, echo: Echo) -> None:
    proxy.lose()
    client.sendall(b"anybody there?")
    assert hears_nothing(client)
    assert echo.open == 1
    assert echo.heard == [b"hello"]


def test_swallowed_connections_are_accepted_and_not_answered(proxy: Proxy, client: socket.socket, echo: Echo) -> None:
    proxy.switch(Swallow())
    with closing(connect(proxy)) as another:
        another.sendall(b"anybody there?")
        assert hears_nothing(another)
        proxy.switch(Forward())
        assert hears_nothing(another)
    assert say(client, b"still here") == b"still here"
    assert echo.heard == [b"hello", b"still here"]


def test_refused_connections_are_reset(proxy: Proxy, client: socket.socket) -> None:
    proxy.switch(Refuse())
    with pytest.raises(ConnectionResetError), closing(connect(proxy)) as another:
        another.recv(1000)
    assert say(client, b"still here") == b"still here"


@pytest.mark.parametrize("after", [0, 3, 9])
def test_an_answer_is_cut_after_so_many_bytes(proxy: Proxy, client: socket.socket, echo: Echo, after: int) -> None:
    proxy.cut(Cut(after=after, asked=lambda piece: b"second" in piece))
    assert say(client, b"the first") == b"the first"
    client.sendall(b"the second")
    assert b"".join(iter(lambda: _read(client), b"")) == b"the second"[:after]
    assert proxy.cuts_made == 1
    assert echo.heard[-1] == b"the second"
    with closing(connect(proxy)) as another:
        assert say(another, b"a second") == b"a second", "it was ordered once"


def test_when_the_server_is_away_clients_are_reset() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with Proxy(port) as proxy, pytest.raises(ConnectionResetError), closing(connect(proxy)) as client:
        client.recv(1000)


def test_the_end_of_a_client_is_the_end_of_its_connection_to_the_server(proxy: Proxy, echo: Echo) -> None:
    with closing(connect(proxy)) as client:
        assert say(client, b"hello") == b"hello"
    wait_until(lambda: echo.open == 0 and proxy.connections == 0, "both ends to end")


def _read(client: socket.socket) -> bytes:
    try:
        return client.recv(1000)
    except ConnectionResetError:
        return b""
