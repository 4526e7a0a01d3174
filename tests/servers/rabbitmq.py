"""A private RabbitMQ server, with an Erlang port mapper of its own. It takes some seconds to start."""

import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress

from amqp import Connection
from amqp.exceptions import AMQPError

from servers.postgres import free_port
from servers.process import ServerProcess, program

SETTINGS = """
listeners.tcp.local = 127.0.0.1:{port}
loopback_users.guest = true
log.console = true
log.console.level = warning
log.file = false
disk_free_limit.absolute = 1MB
vm_memory_high_watermark.relative = 0.9
num_acceptors.tcp = 2
"""

QUIET = "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none"
"""Erlang's scheduler: one thread, which does not spin when there is nothing to do."""


class RabbitServer(ServerProcess):
    name = "rabbitmq"

    def __init__(self) -> None:
        self._program = program("rabbitmq-server", "rabbitmq-server", "/usr/lib/rabbitmq/bin")
        self._control = program("rabbitmqctl", "rabbitmq-server", "/usr/lib/rabbitmq/bin")
        self._epmd = program("epmd", "erlang-base")
        self.port, self._between, self._mapper = free_port(), free_port(), free_port()
        super().__init__()
        (self.folder / "rabbitmq.conf").write_text(SETTINGS.format(port=self.port))
        (self.folder / "plugins").write_text("[].\n")

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def command(self) -> Sequence[str]:
        return [self._program]

    def environment(self) -> Mapping[str, str]:
        folder = self.folder
        return {
            "HOME": str(folder),  # of the cookie
            "RABBITMQ_NODENAME": f"afterwards-{self.port}@localhost",
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),  # the machine's own settings
            "RABBITMQ_DIST_PORT": str(self._between),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{QUIET} -kernel inet_dist_use_interface {{127,0,0,1}}",
            "ERL_EPMD_PORT": str(self._mapper),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }

    def start(self) -> None:
        if not self._spawned:  # it outlives the server's restarts; one that RabbitMQ starts would outlive the tests
            self.spawn([self._epmd, "-address", "127.0.0.1", "-port", str(self._mapper)])
        super().start()

    def control(self, *arguments: str) -> str:
        """Run `rabbitmqctl`. Returns what it prints."""
        environment = {**os.environ, **self.environment()}
        node = environment["RABBITMQ_NODENAME"]
        command = [self._control, "--quiet", "--node", node, *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout

    def answers(self) -> bool:
        if not self._listens():
            return False
        with suppress(OSError, AMQPError):
            connection = Connection(f"127.0.0.1:{self.port}", connect_timeout=5)
            connection.connect()
            connection.close()
            return True
        return False

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=2).close()
        except OSError:
            return False
        return True
