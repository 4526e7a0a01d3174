"""A PgBouncer of the tests' own, in transaction mode, in front of a PostgreSQL server."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pwd import getpwnam

import psycopg

from servers.missing import missing
from servers.postgres import PASSWORD, POLL, TIMEOUT, USER, PostgresServer, _account, free_port

SETTINGS = """
[databases]
* = host=127.0.0.1 port={server} user={user} password={password}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = 3
logfile = {folder}/log
"""


@contextmanager
def pgbouncer(server: PostgresServer) -> Iterator[int]:
    """Run a pooler that lends three connections to the server for each transaction. Yields its port."""
    program = shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")
    if program is None:
        missing("PgBouncer is not installed (Debian: apt-get install pgbouncer)")
    folder, port, account = Path(tempfile.mkdtemp(prefix="afterwards-pgb-")), free_port(), _account()
    settings = SETTINGS.format(server=server.port, user=USER, password=PASSWORD, port=port, folder=folder)
    (folder / "pgbouncer.ini").write_text(settings)
    (folder / "users").write_text(f'"{USER}" ""\n')
    if account:
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, account, getpwnam(account).pw_gid)
    process = subprocess.Popen(
        [program, str(folder / "pgbouncer.ini")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        user=account,
        start_new_session=True,
    )
    try:
        _wait(server, port)
        yield port
    finally:
        process.kill()
        process.wait(TIMEOUT)
        shutil.rmtree(folder, ignore_errors=True)


def _wait(server: PostgresServer, port: int) -> None:
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            psycopg.connect(f"postgresql://{USER}@127.0.0.1:{port}/postgres", connect_timeout=2).close()
            return
        except psycopg.OperationalError:
            assert time.monotonic() < deadline, "PgBouncer does not answer"
            time.sleep(POLL)
