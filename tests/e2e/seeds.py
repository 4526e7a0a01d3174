"""Tasks in every state, as an engine gets them from senders and workers."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import uuid4

from afterwards.core.progress import Progress
from afterwards.core.routing import LiveWorker, PlainRun
from afterwards.core.settling import Settled
from afterwards.core.task import Failure, FailureKind, LogLine, NewTask, State, Task
from afterwards.engine import Claim, Engine, Heartbeat, Paused

LEASE = timedelta(hours=1)

NAMES = frozenset(
    {"send_welcome", "import_rows", "charge_card", "resize_image", "nightly_report", "sync_orders", "write_log"}
)

TRACEBACK = """\
Traceback (most recent call last):
  File "/srv/shop/payments.py", line 41, in charge_card
    receipt = await gateway.charge(card, amount)
              ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/srv/shop/gateway.py", line 17, in charge
    answer = await self.http.post("/charges", json=body)
             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/usr/lib/python3.11/site-packages/httpx/_client.py", line 1859, in post
    return await self.request("POST", url)
  File "/usr/lib/python3.11/site-packages/httpx/_transports/default.py", line 118, in map_httpcore_exceptions
    raise mapped_exc(message) from exc
httpx.ConnectTimeout: the gateway did not answer
"""


class Clock:
    """A clock that can be set back, so that the past has happened."""

    def __init__(self) -> None:
        self.back = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) - self.back


@dataclass(frozen=True, kw_only=True)
class Texts:
    """What people and code write into a task. The name of a task, and of its queue, cannot be any text."""

    key: str = "email"
    value: str = "ada@example.org"
    origin: str = "POST /signup/{email}"
    type: str = "httpx.ConnectTimeout"
    message: str = "the gateway did not answer"
    traceback: str = TRACEBACK
    log: str = "charging 4900 cents"
    logger: str = "shop.payments"
    progress: str = "reading rows.csv"
    unit: str = "rows"
    note: str = ""
    host: str = "web-1"
    reason: str = "the customer asked for it"
    unique_key: str = "charge_card/4711"
    idempotency_key: str = "charge_card/order-4711"
    set_aside: str = "its argument “amount” was written by a newer version"
    result: Any = field(default_factory=lambda: {"rows": 90071992547409931234, "skipped": [], "ok": True})

    @classmethod
    def all_being(cls, text: str) -> "Texts":
        fields = {name: text for name in cls.__dataclass_fields__ if name != "result"}
        return cls(**fields, result={text: [text]})


class Sower:
    """Stores tasks and brings them to their states."""

    def __init__(self, engine: Engine, clock: Clock, texts: Texts | None = None) -> None:
        self.engine = engine
        self.clock = clock
        self.texts = texts or Texts()
        self.worker = LiveWorker(
            id=f"{self.texts.host}:4711:0192",
            host=self.texts.host,
            pid="4711",
            started_at=clock() - timedelta(hours=5),
            names=NAMES,
            slots=20,
            lag=timedelta(milliseconds=12),
            version="0.1.0",
            running=(PlainRun("write_log", clock() - timedelta(seconds=3), self.texts.origin),),
        )

    async def every_state(self) -> dict[str, str]:
        """Store a task in each state, workers, schedules and pauses. Returns the ids by what they are."""
        said, paused = self.texts, Paused(queues=frozenset({"bulk"}), names=frozenset({"sync_orders"}))
        await self.engine.resume(paused)
        await self.engine.announce(
            [self.worker, replace(self.worker, id=f"{self.texts.host}:12:0190", pid="12", has_left=True, running=())]
        )
        await self.engine.register_schedules(
            {"nightly_report": "0 3 * * * Europe/Berlin", "sync_orders": "every 0:05:00"}
        )
        ids = {
            "queued": await self.add("send_welcome"),
            "scheduled": await self.add("send_welcome", wait=timedelta(hours=2)),
            "running": await self.running("import_rows", arguments={"path": "rows.csv", "options": {"skip": [1, 2]}}),
            "asked": await self.running("resize_image", queue="images"),
            "succeeded": await self.succeeded("import_rows"),
            "failed": await self.failed(),
            "retrying": await self.retrying(),
            "plain": await self.plain(),
            "cancelled": await self.add("send_welcome"),
            "set_aside": await self.running("charge_card", queue="payments"),
        }
        ids["waiting"] = await self.add("nightly_report", after=ids["running"])
        await self.engine.cancel([ids["cancelled"], ids["asked"]], said.reason)
        await self.end(ids["set_aside"], state=State.QUEUED, set_aside=said.set_aside)
        await self.engine.pause(paused)
        return ids

    async def add(self, name: str, **options: Any) -> str:
        said = self.texts
        arguments = options.pop("arguments", {"n": 90071992547409931234})
        new = NewTask(
            id=str(uuid4()),
            name=name,
            arguments=json.dumps({said.key: said.value, **arguments}),
            origin=options.pop("origin", said.origin),
            context=json.dumps({"trace": {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}}),
            **options,
        )
        await self.engine.enqueue([new])
        return new.id

    async def claim(self, id: str) -> Task:
        claim = Claim(worker=self.worker.id, limit=1, lease=LEASE, names=NAMES, ids=frozenset({id}))
        [task] = await self.engine.claim(claim)
        return task

    async def running(self, name: str, **options: Any) -> str:
        said, id = self.texts, await self.add(name, **options)
        task = await self.claim(id)
        progress = Progress(done=412, total=1000, description=said.progress, unit=said.unit, note=said.note)
        await self.engine.heartbeat([Heartbeat(task.lease, progress)], lease=LEASE)
        return id

    async def end(self, id: str, **settled: Any) -> None:
        [task] = await self.engine.get([id])
        await self.engine.finish([Settled(lease=task.lease, **settled)])

    async def succeeded(self, name: str) -> str:
        id = await self.add(name, unique_key=self.texts.unique_key, idempotency_key=self.texts.idempotency_key)
        task = await self.claim(id)
        await self.end(id, state=State.SUCCEEDED, result=json.dumps(self.texts.result), logs=self.logs(task))
        return id

    async def failed(self) -> str:
        """Raised, lost, ended too late, and raised for good."""
        id = await self.add("charge_card", queue="payments", arguments={"amount": 4900, "currency": "EUR"})
        task = await self.claim(id)
        await self.end(id, state=State.QUEUED, failed=1, failure=self.failure(task), logs=self.logs(task))
        task = await self.claim(id)
        crashed = replace(self.failure(task, FailureKind.CRASHED), type="", message="", traceback="")
        await self.end(id, state=State.QUEUED, failed=1, failure=crashed)
        await self.engine.finish([Settled(lease=task.lease, state=State.SUCCEEDED)])  # late: it is refused
        task = await self.claim(id)
        await self.end(id, state=State.FAILED, failed=2, failure=self.failure(task), logs=self.logs(task))
        return id

    async def retrying(self) -> str:
        id = await self.add("sync_orders", queue="bulk")
        task = await self.claim(id)
        await self.end(
            id,
            state=State.SCHEDULED,
            wait=timedelta(minutes=4),
            failed=1,
            failure=self.failure(task, FailureKind.TIMED_OUT),
        )
        return id

    async def plain(self) -> str:
        said = self.texts
        failure = Failure(
            attempt=1,
            at=self.clock(),
            worker=self.worker.id,
            kind=FailureKind.RAISED,
            type=said.type,
            message=said.message,
            traceback=said.traceback,
        )
        return await self.add("write_log", failure=failure)

    def failure(self, task: Task, kind: FailureKind = FailureKind.RAISED) -> Failure:
        said = self.texts
        return Failure(
            attempt=task.attempt,
            at=self.clock(),
            worker=self.worker.id,
            kind=kind,
            type=said.type,
            message=said.message,
            traceback=said.traceback,
        )

    def logs(self, task: Task) -> Sequence[LogLine]:
        said = self.texts
        lines = (("INFO", said.log), ("WARNING", "the gateway is slow: 2.1 s"), ("ERROR", said.message))
        return tuple(
            LogLine(attempt=task.attempt, at=self.clock(), level=level, logger=said.logger, message=message)
            for level, message in lines
        )

    async def history(self, hours: float, tasks: int, *, failing: float = 0.03) -> None:
        """Let many tasks have ended, over the last hours."""
        random, kinds = Random(7), sorted(NAMES - {"write_log"})
        for place in range(tasks):
            self.clock.back = timedelta(hours=hours) * (1 - place / tasks) * random.uniform(0.93, 1)
            id = await self.add(random.choice(kinds), queue=random.choice(["default", "default", "mail", "images"]))
            task = await self.claim(id)
            if random.random() < failing:
                await self.end(id, state=State.FAILED, failed=1, failure=self.failure(task))
            else:
                await self.end(id, state=State.SUCCEEDED, result="null")
        self.clock.back = timedelta()

    async def many(self, count: int) -> None:
        """Store this many tasks, in many queues and states."""
        for start in range(0, count, 1000):
            await self.engine.enqueue(
                [
                    NewTask(
                        id=str(uuid4()),
                        name="send_welcome",
                        arguments=json.dumps({"n": number}),
                        queue=f"queue-{number % 7}",
                        wait=timedelta(days=1) if number % 3 else timedelta(),
                    )
                    for number in range(start, start + 1000)
                ]
            )
