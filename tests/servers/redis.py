"""A private Redis server that keeps what it has answered for, also when it is killed: the kernel has it."""

import socket
from collections.abc import Sequence

from servers.postgres import free_port
from servers.process import ServerProcess, program


class RedisServer(ServerProcess):
    name = "redis"

    def __init__(self) -> None:
        self._program = program("redis-server", "redis-server")
        self.port = free_port()
        super().__init__()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> Sequence[str]:
        # With `everysec` it writes nothing while it syncs, and answers all the same.
        keeping = ["--appendonly", "yes", "--appendfsync", "no", "--save", ""]
        return [self._program, "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder), *keeping]

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(100).startswith(b"+PONG")  # "-LOADING" while it reads its file
        except OSError:
            return False
