"""Clients that send one request after the other, and remember what was promised to them."""

import http.client
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from random import Random
from types import TracebackType
from typing import Self

from chaos.history import Sent
from chaos.server import wait_until

KINDS = {"plainly": 10, "in_a_thread": 6, "at_the_second_try": 3, "never": 1}
PAUSE = 0.02  # seconds at most between two requests of a client
KEYED = 0.3  # the share of requests that have an idempotency key
BEFORE_A_REPEAT = 0.2  # seconds
TIMEOUT = 60.0  # seconds after which a client does not wait for its answer any more
MOST_AT_A_TIME = 2000  # more requests than there are between two questions


class Load:
    """Some clients, each in a thread."""

    def __init__(self, port: int, *, seed: str, clients: int = 4, pause: float = PAUSE) -> None:
        self.sent: list[Sent] = []
        self.acknowledged = 0
        self._port = port
        self._pause = pause
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

    def sent_since(self, at: int) -> Iterator[Sent]:
        """Yield the requests that were sent later and have ended, the last ones first."""
        for sent in reversed(self.sent[-MOST_AT_A_TIME:]):
            if sent.at > at:
                yield sent

    def _send_forever(self, random: Random) -> None:
        while not self._stopped.is_set():
            self._send(next(self._numbers), random)
            self._stopped.wait(random.uniform(0, self._pause))

    def _send(self, number: int, random: Random) -> None:
        """Send one request. A client that gives it a key repeats it until it is acknowledged."""
        path = random.choice(["orders", "orders", "orders", "enqueued"])
        length = 1 if path == "enqueued" else random.randint(1, 4)
        ordered = random.random() < 0.8
        steps = [{"kind": _kind(random), "seconds": random.uniform(0, 0.03)} for _ in range(length)]
        key = f"request-{number}" if random.random() < KEYED else None
        request = Request(f"/{path}/{number}", json.dumps({"steps": steps, "ordered": ordered}), key)
        while True:
            answer = self._answer(request)
            self.sent.append(Sent(number=number, length=length, ordered=ordered and path == "orders", **vars(answer)))
            self.acknowledged += answer.ids is not None  # one too few now and then does not matter: only who waits asks
            if key is None or answer.ids is not None or self._stopped.wait(BEFORE_A_REPEAT):
                return

    def _answer(self, request: "Request") -> "Answer":
        at = time.monotonic_ns()
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT)
        headers = {"content-type": "application/json"} | ({"idempotency-key": request.key} if request.key else {})
        ids, status, retry_after = None, None, False
        try:
            connection.request("POST", request.path, request.body, headers)
            answer = connection.getresponse()
            text = answer.read()
            status, retry_after = answer.status, answer.getheader("retry-after") is not None
            ids = tuple(json.loads(text)) if answer.status == 200 else None
        except (OSError, http.client.HTTPException):
            status = None  # also if the answer broke off
        finally:
            connection.close()
        return Answer(ids=ids, status=status, retry_after=retry_after, at=at, seconds=(time.monotonic_ns() - at) / 1e9)


@dataclass(frozen=True)
class Request:
    path: str
    body: str
    key: str | None


@dataclass(frozen=True)
class Answer:
    """The fields of Sent that the answer decides."""

    ids: tuple[str, ...] | None
    status: int | None
    retry_after: bool
    at: int
    seconds: float


def _kind(random: Random) -> str:
    return random.choices(list(KINDS), weights=list(KINDS.values()))[0]
