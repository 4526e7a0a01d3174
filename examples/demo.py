"""A demo of a crash: the shop is killed while its tasks run, and restarted. `python -m examples.demo`

The shop is `examples/shop`, under uvicorn, with its tasks in a SQLite file. The mail server and the warehouse run in
this process. They count what reaches them, so the result does not rely on the shop's own records.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email import message_from_bytes
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import httpx
from aiosmtpd.smtp import SMTP, Envelope, Session

EXAMPLES = Path(__file__).parent
CUSTOMERS, ORDERS, IMPORTS, ROWS = 24, 10, 3, 400
QUICK = 10  # calls that the mail server and the warehouse answer before the kill
SLOW = 0.1  # seconds that each of them takes for an answer
TIME_LIMIT = 55.0  # seconds until the demo gives up


def main() -> int:
    """Run the demo. Returns the exit status, 0 if nothing was lost."""
    with TemporaryDirectory(prefix="afterwards-demo-") as folder, Shop(Path(folder)) as shop:
        try:
            return _show(shop)
        except (TimeoutError, httpx.HTTPError) as error:
            print(f"\n  The demo did not finish: {error!r}\n  The last lines of the shop:\n{shop.last_words()}")
            return 2


def _show(shop: "Shop") -> int:
    print("\n  A shop with background tasks, and kill -9 in the middle of them\n")
    shop.start()
    _say(f"The shop serves (process {shop.pid}); its tasks are kept in {shop.folder / 'tasks.db'}")
    accepted = shop.visit()
    _say(f"{CUSTOMERS + ORDERS + IMPORTS} requests were answered with 2xx: {len(accepted)} tasks are accepted")
    before = shop.wait_until_some_are_done(accepted)
    killed = shop.pid
    shop.kill()
    _say(f"kill -9 {killed}: {_counted(before)}")
    shop.start()
    _say(f"The shop serves again (process {shop.pid})")
    begun = time.monotonic()
    after = shop.wait_until_all_are_done(accepted)
    _say(f"All tasks have finished, {time.monotonic() - begun:.1f} s later")
    lost = _print_table([_row(kind, after, shop.done(kind)) for kind in KINDS])
    print(WHAT_NEXT if lost == 0 else f"  {lost} tasks were lost. This must not happen: please tell us.\n")
    return int(lost > 0)


KINDS = {"send_mail": "mails", "tell_warehouse": "calls to the warehouse", "import_products": "imports of a file"}
"""A text for what each task function does, by its name."""

WHAT_NEXT = """\
  Nothing was lost. Tasks that were killed halfway ran again: the promise is at least once.

  Try next:
    read examples/shop/tasks.py and main.py               the code: two imports and a decorator
    cd examples && ../.venv/bin/uvicorn quickstart:app    the same in 40 lines; kill it yourself
    make chaos                                            hundreds of kills at random moments
"""


@dataclass(frozen=True)
class Row:
    """One row of the result table."""

    kind: str
    accepted: int
    run: int
    again: int

    @property
    def lost(self) -> int:
        return self.accepted - self.run


class Shop:
    """The shop's process, its mail server and warehouse, and its customers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._neighbours = Neighbours()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._process: subprocess.Popen[bytes] | None = None
        self._client = httpx.Client(
            base_url=f"http://127.0.0.1:{self._listening.getsockname()[1]}", timeout=TIME_LIMIT / 2, trust_env=False
        )
        self._deadline = time.monotonic() + TIME_LIMIT

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def start(self) -> None:
        """Start uvicorn, and return when it answers. This process keeps the socket, so no connection is refused."""
        command = [sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLES), "shop.main:app"]
        ours = {name: value for name, value in os.environ.items() if not name.startswith("AFTERWARDS_")}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--fd", str(self._listening.fileno())],
                env=ours | self._neighbours.environment | {"SHOP_FOLDER": str(self.folder)},
                pass_fds=[self._listening.fileno()],
                stdout=log,
                stderr=log,
            )
        self._client.get("/products/none")

    def kill(self) -> None:
        if self._process:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._neighbours.patient.set()

    def visit(self) -> list[str]:
        """Send requests, several at a time. Returns the ids of the accepted tasks."""
        with ThreadPoolExecutor(8) as customers:
            answers = list(customers.map(lambda visit: self._client.post(visit[0], **visit[1]), _visits()))
        return [id for answer in answers for id in answer.raise_for_status().json()["tasks"]]

    def wait_until_some_are_done(self, ids: list[str]) -> list[dict[str, Any]]:
        return self._wait(ids, lambda tasks: sum(task["state"] == "succeeded" for task in tasks) >= QUICK)

    def wait_until_all_are_done(self, ids: list[str]) -> list[dict[str, Any]]:
        finished = {"succeeded", "failed", "cancelled"}
        return self._wait(ids, lambda tasks: all(task["state"] in finished for task in tasks))

    def done(self, kind: str) -> int:
        """Count the distinct effects, as the mail server, the warehouse and the database recorded them."""
        match kind:
            case "send_mail":
                return len(self._neighbours.mails)
            case "tell_warehouse":
                return len(self._neighbours.orders)
            case _:
                return sum(self._has_all_products(number) for number in range(IMPORTS))

    def last_words(self) -> str:
        return self._log.read_text()[-2000:]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._client.close()
        self._listening.close()

    @property
    def _log(self) -> Path:
        return self.folder / "uvicorn.log"

    def _wait(self, ids: list[str], enough: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """Poll the shop's tasks until enough of them match. Raises TimeoutError."""
        while not enough(tasks := [self._client.get(f"/tasks/{id}").raise_for_status().json() for id in ids]):
            if time.monotonic() > self._deadline:
                raise TimeoutError(f"after {TIME_LIMIT:.0f} s: {_counted(tasks)}")
            time.sleep(0.05)
        return tasks

    def _has_all_products(self, number: int) -> bool:
        answers = [self._client.get(f"/products/{_sku(number, row)}") for row in range(0, ROWS, 50)]
        return all(answer.is_success for answer in answers)


class Neighbours:
    """A mail server and a warehouse. Before the kill they answer a few calls and delay the others."""

    def __init__(self) -> None:
        self.mails: Counter[str] = Counter()  # by recipient and subject
        self.orders: Counter[str] = Counter()
        self.patient = threading.Event()
        self._quick = threading.Semaphore(QUICK)
        mail = socket.create_server(("127.0.0.1", 0))
        warehouse = ThreadingHTTPServer(("127.0.0.1", 0), partial(Warehouse, self))
        threading.Thread(target=asyncio.run, args=(self._serve_mail(mail),), daemon=True).start()
        threading.Thread(target=warehouse.serve_forever, daemon=True).start()
        self.environment = {
            "SHOP_MAIL_PORT": str(mail.getsockname()[1]),
            "SHOP_WAREHOUSE_URL": f"http://127.0.0.1:{warehouse.server_port}",
        }

    def take_time(self) -> None:
        time.sleep(SLOW)
        if not self._quick.acquire(blocking=False):
            self.patient.wait()

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Receive a mail (aiosmtpd's hook)."""
        await asyncio.to_thread(self.take_time)
        mail = message_from_bytes(envelope.content or b"")
        self.mails[f"{mail['Subject']} for {mail['To']}"] += 1
        return "250 OK"

    async def _serve_mail(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: SMTP(self, loop=loop, hostname="localhost"), sock=listening)
        await server.serve_forever()


class Warehouse(BaseHTTPRequestHandler):
    """The HTTP handler of the warehouse, which takes orders by their number."""

    def __init__(self, neighbours: Neighbours, *connection: Any) -> None:
        self._neighbours = neighbours
        super().__init__(*connection)

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._neighbours.take_time()
        self._neighbours.orders[self.path] += 1
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Suppress the access log."""


def _visits() -> Iterator[tuple[str, dict[str, Any]]]:
    """Return the requests of the customers: a path and the parameters of each."""
    for number in range(CUSTOMERS):
        yield "/customers", {"json": {"email": f"customer{number}@example.com", "name": f"Customer {number}"}}
    for number in range(ORDERS):
        yield "/orders", {"json": {"email": f"buyer{number}@example.com", "sku": f"sku-{number}"}}
    for number in range(IMPORTS):
        yield "/imports", {"files": {"file": _products(number)}}


def _products(number: int) -> str:
    """Return a CSV file of products."""
    lines = [f"{_sku(number, row)},Product {row} of file {number},{row}" for row in range(ROWS)]
    return "\n".join(["sku,name,price", *lines])


def _sku(number: int, row: int) -> str:
    return f"file-{number}-row-{row}"


def _row(kind: str, tasks: Iterable[dict[str, Any]], done: int) -> Row:
    """Return a table row; a task counts as lost if its effect or its record is missing."""
    of_this_kind = [task for task in tasks if task["name"] == kind]
    succeeded = sum(task["state"] == "succeeded" for task in of_this_kind)
    again = sum(task["attempt"] > 1 for task in of_this_kind)
    return Row(KINDS[kind], accepted=len(of_this_kind), run=min(done, succeeded), again=again)


def _print_table(rows: list[Row]) -> int:
    """Print the result table. Returns how many tasks were lost."""
    total = Row("all", *(sum(getattr(row, column) for row in rows) for column in ("accepted", "run", "again")))
    print(f"\n  {'':<24}{'accepted':>10}{'run':>10}{'run again':>12}{'lost':>8}")
    for row in [*rows, total]:
        print(f"  {row.kind:<24}{row.accepted:>10}{row.run:>10}{row.again:>12}{row.lost:>8}")
    print()
    return total.lost


def _counted(tasks: list[dict[str, Any]]) -> str:
    states = Counter(task["state"] for task in tasks)
    waiting = len(tasks) - states["succeeded"] - states["running"]
    return f"{states['succeeded']} tasks had finished, {states['running']} were running, {waiting} were waiting"


def _say(line: str) -> None:
    print(f"  - {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
