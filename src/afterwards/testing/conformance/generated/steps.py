"""The steps that are drawn at random."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from afterwards.core import lifecycle
from afterwards.core.progress import Progress
from afterwards.core.settling import Cancelled, Raised, Released, SetAside, Snoozed, Succeeded
from afterwards.core.task import State
from afterwards.engine import Paused
from afterwards.testing.conformance.generated.asked import Asked
from afterwards.testing.conformance.generated.invariants import SECOND
from afterwards.testing.conformance.generated.world import NAMES, World

Draw = Callable[[Random], Any]

PAUSED = (
    Paused(queues=frozenset({"mail"})),
    Paused(names=frozenset({"greet"})),
    Paused(names=frozenset({"thank"}), queues=frozenset({"default"})),
)


@dataclass(frozen=True)
class Step:
    """An operation on both engines."""

    method: Callable[..., Awaitable[None]]
    arguments: dict[str, Any]

    async def take(self, world: World) -> None:
        await self.method(world, **self.arguments)
        await world.check(by_hand=self.method in (World.requeue, World.delete))

    def without(self, name: str, index: int) -> "Step":
        """Return the step with one item less in this argument, which is a list."""
        items = self.arguments[name]
        return replace(self, arguments=self.arguments | {name: items[:index] + items[index + 1 :]})

    def __str__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"{self.method.__name__}({arguments})"


def any_step(random: Random) -> Step:
    [(_, method, arguments)] = random.choices(STEPS, weights=[weight for weight, _, _ in STEPS])
    return Step(method, {name: draw(random) for name, draw in arguments.items()})


def _among(*values: object) -> Draw:
    return lambda random: random.choice(values)


def _several(draw: Draw, most: int) -> Draw:
    return lambda random: [draw(random) for _ in range(random.randint(1, most))]


def _maybe(draw: Draw) -> Draw:
    return lambda random: draw(random) if random.random() < 0.3 else None


def _call(random: Random) -> Asked:
    return Asked(
        name=random.choice(["greet", "greet", "thank"]),
        queue=random.choice(["default", "default", "mail"]),
        priority=random.choice([0, 0, -1, 1]),
        retention=random.choice([100, 1_000_000]),
        after=random.choice([None, 0, 0, 1, 2]),
        held=random.random() < 0.2,
        wait=random.choice([0, 0, 0, 0, 5, 90]),
        plain=random.random() < 0.05,
        chained=random.random() < 0.7,
        expires=random.choice([None, None, None, 20, 70]),
        unique_key=random.choice([None, None, None, "one", "two"]),
        idempotency_key=random.choice([None, None, None, None, "this", "that"]),
        limit_key=random.choice(["", "*", "ada", "eve"]),
        rerun_after_crash=random.random() < 0.9,
        max_queued=random.choice([None, None, None, 6]),
        secrets=random.choice([(), (), (), ("name",)]),
    )


_number = _among(*range(8))
_numbers = _several(_number, most=3)
_names = _among(NAMES, frozenset({"greet"}), frozenset({"thank"}), frozenset())
_queues = _among(frozenset({"default", "mail"}), frozenset({"default"}), frozenset({"mail"}), frozenset())
_states = _among(
    frozenset({State.RUNNING}),
    frozenset({State.WAITING, State.CANCELLED}),
    frozenset({State.SCHEDULED, State.QUEUED}),  # each engine may choose when a task moves from one to the other
    frozenset({State.SUCCEEDED, State.FAILED}),
)
_outcome = _among(
    Succeeded('"done"'),
    Succeeded('"done"'),
    Raised(error=ValueError("no"), delay=10 * SECOND),
    Raised(error=ValueError("no"), delay=10 * SECOND),
    Snoozed(10 * SECOND),
    Cancelled("by itself"),
    Released(),
    SetAside("its arguments do not fit"),
)


STEPS: list[tuple[int, Callable[..., Awaitable[None]], dict[str, Draw]]] = [
    (5, World.enqueue, {"calls": _several(_call, most=4), "slots": _among(0, 0, 1, 3)}),
    (
        2,
        World.publish,
        {
            "numbers": _numbers,
            "attempt": _among(0, 0, 1),
            "start": _among(None, None, -1, 30, lifecycle.HOLD, lifecycle.HOLD),
        },
    ),
    (4, World.claim, {"suspects": _among(0, 1, 2)}),
    (3, World.claim, {"limit": _among(1, 2, 3)}),
    (2, World.claim, {"names": _names, "queues": _maybe(_queues), "numbers": _maybe(_numbers)}),
    (2, World.dispatch, {"limit": _among(1, 2, 100), "names": _names, "queues": _maybe(_queues)}),
    (2, World.claim, {"arrived": _numbers}),
    (6, World.finish, {"numbers": _numbers, "outcome": _outcome, "retries": _among(0, 1, 2), "lines": _among(0, 0, 2)}),
    (2, World.heartbeat, {"numbers": _numbers, "progress": _among(None, Progress(done=1), Progress(done=2, total=3))}),
    (1, World.look_for_expired, {}),
    (1, World.give_up_what_was_seen_expired, {}),
    (3, World.workers_die, {}),
    (1, World.a_reaper_is_slow, {"numbers": _numbers}),
    (2, World.cancel, {"number": _number}),
    (2, World.requeue, {"numbers": _numbers}),
    (1, World.requeue, {"numbers": lambda random: list(range(100))}),
    (1, World.start_now, {"numbers": _numbers}),
    (1, World.delete, {"numbers": _numbers}),
    (1, World.prune, {}),
    (1, World.pause, {"paused": _among(*PAUSED)}),
    (2, World.resume, {"paused": _among(*PAUSED)}),
    (
        1,
        World.register_schedules,
        {"expressions": _among({"greet": "a", "thank": "b"}, {"greet": "b"}, {"thank": "a"})},
    ),
    (3, World.fire, {"calls": _several(_call, most=3), "slots": _several(_among(-2, -1, 0, 0, 1), most=3)}),
    (1, World.pause_schedules, {"names": _names}),
    (1, World.resume_schedules, {"names": _names}),
    (1, World.announce, {"names": _names, "queues": _maybe(_queues), "has_left": _among(False, True)}),
    (1, World.move, {"limit": _among(1, 3, 100)}),
    (3, World.time_passes, {"seconds": _among(1, 10, 29, 30, 31, 60, 100)}),
    (
        2,
        World.find,
        {
            "states": _maybe(_states),
            "names": _maybe(_names),
            "queues": _maybe(_queues),
            "before": _maybe(_number),
            "since": _maybe(_among(0, 10, 60)),
            "behind": _maybe(_number),
            "text": _maybe(_among("gREEt", "no", "-7", "nowhere")),
            "limit": _among(1, 3, 100),
        },
    ),
]
