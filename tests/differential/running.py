"""Orders runs from host processes, several at once, and reads what they observed."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

from differential.allowed import expected
from differential.diary import AT_SHUTDOWN
from differential.kit import Variant
from differential.observation import Observation

ROOT = Path(__file__).parents[1]  # from where `differential` can be imported
AT_ONCE = 4  # runs mostly wait for uvicorn to shut down, so there may be more of them than processors


class Runs:
    """Each situation under each variant, run once when it is asked for or begun, and stock once more."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="differential-")
        self._pool = ThreadPoolExecutor(AT_ONCE)
        self._hosts: dict[bool, Host] = {}
        self._runs: dict[tuple[str, Variant, int], Future[Observation]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=True)  # before its hosts: a run that lost its host would never end
        for host in self._hosts.values():
            host.stop()
        self._folder.cleanup()

    def begin(self, wanted: Iterable[tuple[str, Variant]]) -> None:
        """Run these in the background, in this order; stock twice."""
        for situation, variant in wanted:
            self._run(situation, variant)
            if variant is Variant.STOCK:
                self._run(situation, variant, 2)

    def observed(self, situation: str, variant: Variant) -> Observation:
        """What the run came to. Waits for it."""
        return self._run(situation, variant).result()

    def observed_again(self, situation: str) -> Observation:
        """What a second run of stock came to."""
        return self._run(situation, Variant.STOCK, 2).result()

    def _run(self, situation: str, variant: Variant, time: int = 1) -> Future[Observation]:
        if variant is not Variant.STOCK:
            # Started earlier, so that it does not wait for a place in the pool behind one that waits for it.
            self._run(situation, Variant.STOCK)
        key = situation, variant, time
        if key not in self._runs:
            self._runs[key] = self._pool.submit(self._observe, self._host(variant), *key)
        return self._runs[key]

    def _observe(self, host: "Host", situation: str, variant: Variant, time: int) -> Observation:
        events = 0
        if variant is not Variant.STOCK:
            wanted = expected(situation, variant, self.observed(situation, Variant.STOCK)).events
            events = sum(not event.startswith(AT_SHUTDOWN) for event in wanted)
        folder = Path(self._folder.name, f"{situation} {variant} {time}")
        folder.mkdir()
        return host.observe(situation, variant, folder, events)

    def _host(self, variant: Variant) -> "Host":
        """Two processes, since the one for FastAPI's own class shall not know that we exist."""
        stock = variant is Variant.STOCK
        if stock not in self._hosts:
            self._hosts[stock] = Host() if stock else Host("afterwards", "afterwards.engines.sqlite")
        return self._hosts[stock]


class Host:
    """A process that has imported FastAPI, and us or not, and forks a child for each run."""

    def __init__(self, *modules: str) -> None:
        # Without pytest's variables and settings of ours: a server, as in production.
        environment = {name: text for name, text in os.environ.items() if not name.startswith(("PYTEST", "AFTERWARDS"))}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "always", "-m", "differential.host", *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment | {"PYTHONPATH": f"{ROOT}{os.pathsep}{environment.get('PYTHONPATH', '')}"},
            start_new_session=True,  # so that it can be ended with its children
        )
        self._ordering = threading.Lock()
        self._ready = self._process.stdout.readline() == "ready\n"

    def observe(self, situation: str, variant: Variant, folder: Path, events: int) -> Observation:
        """Run the situation in the folder; the run waits for that many events before it stops its server."""
        if not self._ready:
            raise AssertionError(f"the host process for {variant} ended at once; it says why on stderr")
        done, observed = folder / "done", folder / "observed.json"
        os.mkfifo(done)
        order = {"situation": situation, "variant": variant, "folder": str(folder), "done": str(done), "events": events}
        with self._ordering:
            self._process.stdin.write(f"{json.dumps(order)}\n")
            self._process.stdin.flush()
        done.read_bytes()  # ends when the child has ended, however it did
        if not observed.exists():
            raise AssertionError(f"{situation} under {variant}: the server's process ended before its time")
        fields = json.loads(observed.read_text())
        if failed := fields.pop("failed"):
            raise AssertionError(f"{situation} under {variant}: {failed}\nuntil then: {fields.get('events')}")
        return Observation(**fields)

    def stop(self) -> None:
        """End the process and what it runs."""
        with self._process, suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
