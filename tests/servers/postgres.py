"""A private PostgreSQL server in a temporary folder, which tests may kill. It ends with the process that started it."""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from pwd import getpwnam
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode

import psycopg
from psycopg import sql

OLDEST = 13
"""The oldest version that the engine supports."""

FOLDER = "AFTERWARDS_TEST_POSTGRES"
"""The environment variable with the folder of the server's programs, to run the tests on another version."""

USER, PASSWORD = "owner", "s3cret"
TIMEOUT = 60.0  # seconds that a start or an end may take on a busy machine
POLL = 0.05

CAREFUL: Mapping[str, str] = {"fsync": "on"}
"""What was committed survives a power cut: PostgreSQL's own defaults."""

FAST: Mapping[str, str] = {"fsync": "off", "full_page_writes": "off"}
"""What was committed survives the end of the server's processes, or nearly all of it: for tests that kill nothing."""

ALWAYS: Mapping[str, str] = {
    "listen_addresses": "'127.0.0.1'",
    "max_connections": "200",
    "max_prepared_transactions": "20",
    "shared_buffers": "'32MB'",
    "logging_collector": "off",
    "log_min_messages": "log",
    "log_checkpoints": "off",
}


class NotInstalled(Exception):
    """No PostgreSQL server is installed here, or none that is new enough."""


@dataclass(frozen=True)
class Programs:
    """The programs of one PostgreSQL version."""

    folder: Path
    version: int

    def __getitem__(self, name: str) -> str:
        return str(self.folder / name)


@cache
def programs() -> Programs:
    """Return the server in the folder that FOLDER names, else the newest that is installed. Raises NotInstalled."""
    found = [Programs(folder, version) for folder in _folders() if (version := _version(folder / "postgres"))]
    newest = max(found, key=lambda one: one.version, default=None)
    if newest is None:
        raise NotInstalled(
            f"no PostgreSQL server is installed (initdb and postgres; Debian: apt-get install postgresql), or {FOLDER} "
            "names a folder without one"
        )
    if newest.version < OLDEST:
        raise NotInstalled(
            f"PostgreSQL {newest.version} in {newest.folder} is too old: {OLDEST} is the oldest supported"
        )
    return newest


class PostgresServer:
    """A server with data of its own. Starting it takes a second or two.

    It listens on a port of 127.0.0.1 that stays the same over restarts. The folder, and the server with it, are removed
    by ``close``, and also when this process is killed.
    """

    def __init__(self, settings: Mapping[str, str] = FAST) -> None:
        self.programs = programs()
        self._account = _account()
        # Short, because the path of a socket has 107 characters; and where the server's account may go.
        self.folder = Path(tempfile.mkdtemp(prefix="afterwards-pg-", dir="/tmp" if self._account else None))
        if self._account:
            shutil.chown(self.folder, self._account, getpwnam(self._account).pw_gid)
        self.data = self.folder / "data"
        self.port = free_port()
        self._settings = {**ALWAYS, **settings}
        self._process: subprocess.Popen[bytes] | None = None
        self._names = count(1)
        self._undertaker = self._popen(
            ["sh", "-c", UNDERTAKER, "sh", self.programs["pg_ctl"], str(self.folder)], stdin=subprocess.PIPE
        )

    def __enter__(self) -> Self:
        try:
            self._initialise()
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process id of the postmaster."""
        assert self._process
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def url(self, database: str = "postgres", *, user: str = USER, password: str = PASSWORD, **query: str) -> str:
        """Return the URL of a database of this server, with these parameters."""
        address = f"postgresql://{user}:{quote(password, safe='')}@127.0.0.1:{self.port}/{database}"
        return f"{address}?{urlencode(query)}" if query else address

    def connect(self, database: str = "postgres", **options: Any) -> psycopg.Connection[Any]:
        """Connect as the server's owner, each statement a transaction of its own."""
        return psycopg.connect(self.url(database), autocommit=True, **options)

    def create_database(self) -> str:
        """Create an empty database. Returns its name."""
        name = f"test_{next(self._names)}"
        with self.connect() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database. Whoever is still connected to it is thrown out."""
        with self.connect() as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def start(self) -> None:
        """Start the server, and return when it answers. Raises RuntimeError if it ends instead, with what it said."""
        deadline = time.monotonic() + TIMEOUT
        self._spawn()
        while not self._answers():
            if not self.running:
                if not self._may_try_again():
                    raise RuntimeError(f"PostgreSQL did not start:\n{self.log()[-4000:]}")
                self._spawn()
            if time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL does not answer:\n{self.log()[-4000:]}")
            time.sleep(POLL)

    def stop(self) -> None:
        """Stop it as an administrator does: connections are ended, and everything is written."""
        self.kill(signal.SIGINT)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send the postmaster a signal that ends it, and return when it has ended.

        SIGQUIT ends all server processes at once, without a checkpoint. After SIGKILL, the others end a little later.
        """
        if self.running:
            assert self._process
            self._process.send_signal(number)
            self._process.wait(TIMEOUT)

    def restart(self, number: signal.Signals = signal.SIGINT) -> None:
        """End it with this signal, and start it again."""
        self.kill(number)
        self.start()

    def configure(self, **settings: str) -> None:
        """Change settings. Those that need no restart are in force for new connections when this returns."""
        self._settings |= settings
        self._write_settings()
        if self.running:
            with self.connect() as connection:
                connection.execute("SELECT pg_reload_conf()")

    def allow_everywhere(self) -> None:
        """Listen on all addresses, also on those that this machine gets later, and ask everybody for the password."""
        with (self.data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all all scram-sha-256\n")
        self.configure(listen_addresses="'*'")
        self.restart()

    def standby(self) -> "PostgresServer":
        """Return a new server that follows this one, not started: a context manager, as this one."""
        return _Standby(self)

    def log(self) -> str:
        file = self.folder / "log"
        return file.read_text(errors="replace") if file.exists() else ""

    def close(self) -> None:
        """End the server and remove its folder."""
        assert self._undertaker.stdin
        self._undertaker.stdin.close()
        self._undertaker.wait(TIMEOUT)
        if self._process:
            self._process.wait(TIMEOUT)

    def _initialise(self) -> None:
        password = self.folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        options = ["--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={password}", f"--username={USER}"]
        self._run("initdb", "--no-sync", "--encoding=UTF8", "--locale=C", "--no-instructions", *options)
        self._write_settings()

    def _write_settings(self) -> None:
        """Write the file that PostgreSQL reads last, apart from what ALTER SYSTEM has written."""
        settings = {"port": str(self.port), "unix_socket_directories": f"'{self.folder}'"} | self._settings
        (self.data / "tests.conf").write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
        (self.data / "tests.conf").chmod(0o644)
        main = self.data / "postgresql.conf"
        if "tests.conf" not in (text := main.read_text()):
            main.write_text(text + "\ninclude 'tests.conf'\n")

    def _run(self, program: str, *arguments: str) -> None:
        process = self._popen(
            [self.programs[program], "-D", str(self.data), *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        said, _ = process.communicate(timeout=TIMEOUT)
        if process.returncode:
            raise RuntimeError(f"{program} failed:\n{said.decode(errors='replace')}")

    def _spawn(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = self._popen(
                [self.programs["postgres"], "-D", str(self.data)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _answers(self) -> bool:
        try:
            self.connect(connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _may_try_again(self) -> bool:
        """After SIGKILL, the old server's processes hold its memory for a moment; and a port may be taken meanwhile."""
        last = self.log()[-2000:]
        if "could not bind" in last and not self._was_up():
            self.port = free_port()
            self._write_settings()
            return True
        time.sleep(POLL * 2)
        return any(words in last for words in STILL_THERE)

    def _was_up(self) -> bool:
        return "ready to accept connections" in self.log()

    def _popen(self, command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start a process as the account that may run a server, out of reach of the terminal's Ctrl-C."""
        if self._account:
            options |= {"user": self._account, "group": getpwnam(self._account).pw_gid, "extra_groups": []}
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
        return subprocess.Popen(command, cwd=self.folder, env=environment, start_new_session=True, **options)


class _Standby(PostgresServer):
    """A copy of another server that follows it, and that can only be read."""

    def __init__(self, primary: PostgresServer) -> None:
        super().__init__(primary._settings)
        self._primary = primary

    def _initialise(self) -> None:
        self._run(
            "pg_basebackup",
            "--write-recovery-conf",
            "--checkpoint=fast",
            "--no-sync",
            f"--dbname={self._primary.url()}",
        )
        self._write_settings()


UNDERTAKER = """cat >/dev/null; "$1" stop -D "$2/data" -m immediate >/dev/null 2>&1; cd / && rm -rf "$2" 2>/dev/null"""
"""Waits for the end of its input, which ends with the process of the tests however that ends."""

STILL_THERE = ("is still in use", "is another postmaster", "Address already in use")


def _folders() -> Iterator[Path]:
    """Yield the folders that have a server; only the chosen one, if one is chosen."""
    chosen = os.environ.get(FOLDER)
    for folder in [Path(chosen)] if chosen else dict.fromkeys(_installed()):
        if all((folder / name).is_file() for name in ("initdb", "postgres", "pg_ctl")):
            yield folder


def _installed() -> Iterator[Path]:
    """Yield the folders in which systems keep servers."""
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    yield from sorted(Path("/opt/homebrew/opt").glob("postgresql*/bin"))
    if config := shutil.which("pg_config"):
        said = subprocess.run([config, "--bindir"], capture_output=True, text=True)
        yield Path(said.stdout.strip())
    if initdb := shutil.which("initdb"):
        yield Path(initdb).resolve().parent


def _version(postgres: Path) -> int | None:
    said = subprocess.run([postgres, "--version"], capture_output=True, text=True)
    found = re.search(r"\(PostgreSQL\) (\d+)", said.stdout)
    return int(found[1]) if found else None


def _account() -> str | None:
    """Return the account to run the server as; None for our own. PostgreSQL refuses to run as root."""
    if os.geteuid():
        return None
    for name in ("postgres", "nobody"):
        try:
            return getpwnam(name).pw_name
        except KeyError:
            continue
    raise NotInstalled("PostgreSQL does not run as root, and there is neither an account 'postgres' nor 'nobody'")


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on. The system gives it to nobody who asks for any port."""
    while True:
        # Not `random`: all processes of tests have its seed. From 32768 on, ports may be given away before it is used.
        port = 20_000 + secrets.randbelow(12_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
