"""What may happen to an application: its processes are killed, its database is, and the network between them fails."""

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from chaos import celery_fleet
from chaos.hosts import Hosts
from chaos.pulse import Pulse
from chaos.stores import PostgresStore, Store
from servers.process import ServerProcess
from servers.proxy import Cut, Forward, Hold, Proxy, Refuse, Swallow

LONGEST_LIFE = 0.6  # seconds that all is well between two troubles
LONGEST_START = 1.5  # seconds from the start of a server that is killed whether it has answered or not
LONGEST_OUTAGE = 3.0  # seconds that the database or the network is away
MOST_DOUBLED = 40  # tasks of which messages are doubled at once
LONGEST_CUT = 200  # bytes of an answer that arrive before its connection is reset


class Trouble(StrEnum):
    PROCESS_KILLED = "process killed"
    DATABASE_QUIT = "database ended by SIGQUIT"
    DATABASE_KILLED = "database ended by SIGKILL"
    SLOW = "slow network"
    HELD = "packets held up"
    CUT = "answers cut"
    RESET = "connections reset"
    HALF_OPEN = "connections half open"
    LOST = "connections lost"
    SWALLOWED = "packets swallowed"
    REFUSED = "connections refused"
    BROKER_RESTARTED = "broker restarted"
    BROKER_KILLED = "broker killed"
    PURGED = "messages purged"
    DOUBLED = "messages doubled"

    @property
    def patience(self) -> float:
        """Seconds within which work goes on when it is over."""
        return SILENT_PATIENCE if self in SILENT else BROKER_PATIENCE if self in BROKER else 10.0


DATABASE = (Trouble.DATABASE_QUIT, Trouble.DATABASE_KILLED)
BROKER = (Trouble.BROKER_RESTARTED, Trouble.BROKER_KILLED)
MESSAGES = (Trouble.PURGED, Trouble.DOUBLED)
NETWORK = tuple(
    trouble
    for trouble in Trouble
    if trouble is not Trouble.PROCESS_KILLED and trouble not in (*DATABASE, *BROKER, *MESSAGES)
)
SILENT = (Trouble.HALF_OPEN, Trouble.LOST, Trouble.SWALLOWED)
"""Troubles that nobody is told of: who waits for an answer finds out by waiting."""

SILENT_PATIENCE = 30.0

BROKER_PATIENCE = 60.0
"""Celery's workers wait longer from try to try before they find their broker again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Troubles:
    """How many of each kind shall happen, in an order that the seed decides."""

    kills: int
    database: int = 0
    network: int = 0
    broker: int = 0
    messages: int = 0

    @property
    def total(self) -> int:
        return self.kills + self.database + self.network + self.broker + self.messages

    def drawn(self, random: Random) -> list[Trouble]:
        drawn = [Trouble.PROCESS_KILLED] * self.kills + _in_turns(DATABASE, self.database, random)
        drawn += _in_turns(NETWORK, self.network, random)
        drawn += _in_turns(BROKER, self.broker, random) + _in_turns(MESSAGES, self.messages, random)
        random.shuffle(drawn)
        return drawn

    def __str__(self) -> str:
        others = f", {self.database} of the database, {self.network} network troubles" * bool(self.database)
        others += f", {self.broker} of the broker, {self.messages} troubles of its messages" * bool(self.broker)
        return f"{self.kills} kills of processes{others}"


def cause(
    trouble: Trouble, store: Store, broker: ServerProcess | None, hosts: Hosts, pulse: Pulse, random: Random
) -> int | None:
    """Cause one trouble after a moment. Returns when it was over, by the clock of the histories; None if it is not yet.

    A process that was killed is started again, and may be killed while it starts.
    """
    _let_it_live(trouble, pulse, random, work=broker is not None)
    if trouble is Trouble.PROCESS_KILLED:
        hosts.kill_one(random)
        return None
    if trouble in (*BROKER, *MESSAGES):
        assert broker is not None
        _trouble_the_broker(trouble, broker, hosts, pulse, random)
        return time.monotonic_ns()
    assert isinstance(store, PostgresStore)
    if trouble in DATABASE:
        store.server.kill(signal.SIGQUIT if trouble is Trouble.DATABASE_QUIT else signal.SIGKILL)
        hosts.look_after(random.uniform(0, LONGEST_OUTAGE))
        store.server.start()
    else:
        _fail_the_network(trouble, store.proxy, random, hosts.look_after)
        store.proxy.switch(Forward())
    return time.monotonic_ns()


def _let_it_live(trouble: Trouble, pulse: Pulse, random: Random, *, work: bool) -> None:
    if trouble is not Trouble.PROCESS_KILLED:
        # The start of a process is not part of what is measured. uvicorn ends all its processes when one cannot start.
        pulse.all_serve()
        pulse.goes_on()
        time.sleep(random.uniform(0, LONGEST_LIFE))
    elif work and random.random() < 0.7:  # a Celery worker takes seconds to start, and else would never do anything
        pulse.goes_on()
        time.sleep(random.uniform(0, LONGEST_LIFE))
    elif random.random() < 0.1:
        time.sleep(random.uniform(0, LONGEST_START))
    else:
        pulse.answers()
        time.sleep(random.uniform(0, LONGEST_LIFE))


def _fail_the_network(trouble: Trouble, proxy: Proxy, random: Random, wait: Callable[[float], None]) -> None:
    span = random.uniform(0.2, LONGEST_OUTAGE)
    match trouble:
        case Trouble.SLOW:
            proxy.switch(Forward(0.0, 0.1))
            wait(span)
        case Trouble.HELD:
            proxy.switch(Hold())
            wait(span)
        case Trouble.CUT:
            for _ in range(3):
                proxy.cut(Cut(after=random.randint(0, LONGEST_CUT), asked=lambda _: random.random() < 0.3))
            wait(span)
            proxy.forget_cuts()
        case Trouble.RESET:
            proxy.reset()
        case Trouble.HALF_OPEN:
            proxy.half_open()
        case Trouble.LOST:
            proxy.lose()
        case Trouble.SWALLOWED:
            proxy.switch(Swallow())
            proxy.lose()
            wait(span)
        case Trouble.REFUSED:
            proxy.switch(Refuse())
            proxy.reset()
            wait(span)


def _trouble_the_broker(trouble: Trouble, broker: ServerProcess, hosts: Hosts, pulse: Pulse, random: Random) -> None:
    match trouble:
        case Trouble.BROKER_RESTARTED | Trouble.BROKER_KILLED:
            broker.kill(signal.SIGTERM if trouble is Trouble.BROKER_RESTARTED else signal.SIGKILL)
            hosts.look_after(random.uniform(0, LONGEST_OUTAGE))
            broker.start()
        case Trouble.PURGED:
            celery_fleet.purge(broker)
        case Trouble.DOUBLED:
            celery_fleet.double(broker, pulse.promised(MOST_DOUBLED))


def _in_turns(kinds: Sequence[Trouble], number: int, random: Random) -> list[Trouble]:
    """Return so many, each kind in its turn, beginning anywhere."""
    first = random.randrange(len(kinds))
    return [kinds[turn % len(kinds)] for turn in range(first, first + number)]
