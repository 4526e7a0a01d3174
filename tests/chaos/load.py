"""Clients that send one request after the other, and remember what was promised to them."""

import http.client
import json
import threading
from itertools import count
from random import Random
from types import TracebackType
from typing import Any, Self

from chaos.history import Sent
from chaos.server import wait_until

KINDS = {"plainly": 10, "in_a_thread": 6, "at_the_second_try": 3, "never": 1}
PAUSE = 0.02  # seconds at most between two requests of a client


class Load:
    """Some clients, each in a thread."""

    def __init__(self, port: int, *, seed: str, clients: int = 4) -> None:
        self.sent: list[Sent] = []
        self.acknowledged = 0
        self._port = port
        self._numbers = count()
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._send_forever, args=(Random(f"{seed} {client}"),)) for client in range(clients)
        ]

    def wait_for_answers(self, answers: int = 1) -> None:
        """Return when the server has acknowledged so many requests from now on."""
        enough = self.acknowledged + answers
        wait_until(lambda: self.acknowledged >= enough, "the server to answer", timeout=60)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _send_forever(self, random: Random) -> None:
        while not self._stopped.is_set():
            sent = self._send(next(self._numbers), random)
            self.sent.append(sent)
            self.acknowledged += sent.ids is not None  # one too few now and then does not matter: only who waits asks
            self._stopped.wait(random.uniform(0, PAUSE))

    def _send(self, number: int, random: Random) -> Sent:
        path = random.choice(["orders", "orders", "orders", "enqueued"])
        length = 1 if path == "enqueued" else random.randint(1, 4)
        ordered = random.random() < 0.8
        steps = [{"kind": _kind(random), "seconds": random.uniform(0, 0.03)} for _ in range(length)]
        ids = self._answer(f"/{path}/{number}", {"steps": steps, "ordered": ordered})
        return Sent(number=number, length=length, ordered=ordered and path == "orders", ids=ids)

    def _answer(self, path: str, body: dict[str, Any]) -> tuple[str, ...] | None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
        try:
            connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            return tuple(json.loads(text)) if answer.status == 200 else None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()


def _kind(random: Random) -> str:
    return random.choices(list(KINDS), weights=list(KINDS.values()))[0]
