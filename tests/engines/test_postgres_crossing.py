"""Transactions of several engines that cross each other on one PostgreSQL database, as those of several hosts do."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import psycopg
import pytest
from postgres_calls import LEASE, claim, end, new, until
from psycopg import IsolationLevel, sql

from afterwards.core.errors import EngineUnavailable, QueueFull
from afterwards.core.limits import Limit, Rate
from afterwards.core.settling import Raised, Released, Succeeded
from afterwards.core.tallies import KEPT, STEP, Ends, step_of
from afterwards.core.task import NewTask, State
from afterwards.engine import Answer, Fire, Heartbeat, Joined
from afterwards.engines.postgres import PostgresEngine, rows
from afterwards.engines.postgres.io import schema
from afterwards.engines.postgres.operations import tallying
from afterwards.testing.conformance.joining import DriverTransaction
from servers.postgres import PostgresServer

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("postgres_crossing")]

HOSTS = 4
DEADLOCK = "deadlock detected"
WAITING_FOR_A_LOCK = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
)
ONE, TWO = {"greet": Limit(max_concurrency=1)}, {"greet": Limit(max_concurrency=2)}


@pytest.fixture
async def engines(postgres_url: str) -> AsyncIterator[list[PostgresEngine]]:
    """Engines that share nothing but the database."""
    async with AsyncExitStack() as opened:
        yield [await opened.enter_async_context(PostgresEngine(postgres_url)) for _ in range(HOSTS)]


async def at_once(calls: Sequence[Awaitable[Any]]) -> list[Any]:
    return await asyncio.gather(*calls)


async def states(engine: PostgresEngine, ids: Sequence[str]) -> Counter[str]:
    return Counter(task.state.value for task in await engine.get(ids))


async def test_no_task_is_claimed_twice(engines: list[PostgresEngine]) -> None:
    await engines[0].enqueue([new() for _ in range(400)])
    taken: list[str] = []

    async def take(engine: PostgresEngine) -> None:
        while tasks := await engine.claim(claim(7)):
            taken.extend(task.id for task in tasks)

    await at_once([take(engine) for engine in engines])
    assert len(taken) == len({*taken}) == 400


async def test_a_limit_holds_whoever_claims(engines: list[PostgresEngine]) -> None:
    keys = ["ada", "eve", "*"]
    await engines[0].enqueue([new(limit_key=keys[n % 3]) for n in range(90)])
    running: Counter[str] = Counter()
    most: Counter[str] = Counter()
    left = 90

    async def work(engine: PostgresEngine) -> None:
        nonlocal left
        while left:
            tasks = await engine.claim(claim(5, limits=TWO))
            for task in tasks:
                running[task.limit_key] += 1
                most[task.limit_key] = max(most[task.limit_key], running[task.limit_key])
            await asyncio.sleep(0)
            for task in tasks:
                running[task.limit_key] -= 1
            assert await engine.finish([end(task) for task in tasks]) == []
            left -= len(tasks)

    await at_once([work(engine) for engine in engines])
    assert max(most.values()) <= 2


async def test_a_limit_holds_for_claims_of_different_tasks(engines: list[PostgresEngine]) -> None:
    for _ in range(10):
        stored = await engines[0].enqueue([new(limit_key="*") for _ in engines])
        calls = [
            engine.claim(claim(ids=frozenset({task.id}), limits=ONE))
            for engine, task in zip(engines, stored, strict=True)
        ]
        taken = [task for some in await at_once(calls) for task in some]
        assert len(taken) == 1
        await engines[0].finish([end(taken[0])])
        await engines[0].cancel([task.id for task in stored], "out of the way")


async def test_a_rate_holds_whoever_claims(engines: list[PostgresEngine]) -> None:
    await engines[0].enqueue([new(limit_key="*") for _ in range(25)])
    limits = {"greet": Limit(rate=Rate(7, timedelta(hours=1)))}
    for _ in range(3):
        await at_once([engine.claim(claim(5, limits=limits)) for engine in engines])
    assert (await engines[0].stats()).counts["default", State.RUNNING] == 7


async def test_ends_are_counted_whoever_finishes_and_whoever_merges_the_counts(
    engines: list[PostgresEngine], postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres.configure(log_min_messages="error")
    monkeypatch.setattr(tallying, "NOT_MERGED", -2 * STEP)  # also those of this minute
    before = postgres.log().count(DEADLOCK)
    await engines[0].enqueue([new() for _ in range(400)])

    async def work(engine: PostgresEngine) -> None:
        while tasks := await engine.claim(claim(20)):
            failed = Raised(error=ValueError("no"))
            outcomes = [failed if number % 4 == 0 else Succeeded() for number in range(len(tasks))]
            ends = [engine.finish([end(*pair)]) for pair in zip(tasks, outcomes, strict=True)]
            await at_once([*ends, engine.prune(1)])

    await at_once([work(engine) for engine in engines])
    counted = [tally.ends for tally in await engines[0].tallies(KEPT, STEP)]
    assert Ends(*map(sum, zip(*counted, strict=True))) == Ends(300, 100, 0)
    assert postgres.log().count(DEADLOCK) == before


async def test_an_open_transaction_that_counts_keeps_nobody_waiting(
    engines: list[PostgresEngine], postgres_url: str
) -> None:
    await engines[0].enqueue([new()])
    [task] = await engines[0].claim(claim())
    with closing(psycopg.connect(postgres_url)) as open, open.cursor() as cursor:
        for minutes in range(2):
            minute = rows.from_instant(step_of(datetime.now(UTC)) + minutes * STEP)
            cursor.execute(tallying.COUNT_ENDS, (minute, 1, 0, 0))
        assert await engines[0].finish([end(task)]) == []
        open.rollback()


async def test_a_key_is_unique_whoever_stores_it(engines: list[PostgresEngine]) -> None:
    for round in range(10):
        keys: list[dict[str, Any]] = [{"unique_key": f"u{round}"}, {"idempotency_key": f"i{round}"}]
        calls = [[new(**keys[0]), new(**keys[1])] for _ in engines] + [
            [new(**keys[1]), new(**keys[0])] for _ in engines
        ]
        answers = await at_once([engines[n % HOSTS].enqueue(call) for n, call in enumerate(calls)])
        assert len({task.id for answer in answers for task in answer}) == 2
        assert await engines[0].get([new.id for call in calls for new in call])


async def test_keys_that_are_stored_in_different_orders_do_not_wait_for_each_other(
    engines: list[PostgresEngine], postgres: PostgresServer
) -> None:
    postgres.configure(log_min_messages="error")
    random, before = Random(1), postgres.log().count(DEADLOCK)
    for round in range(10):
        keys = [f"{round}-{number}" for number in range(100)]
        calls = [(engine, key) for engine in engines for key in random.sample(keys, len(keys))]
        await at_once([engine.enqueue([new(unique_key=key)]) for engine, key in calls])
    assert postgres.log().count(DEADLOCK) == before


async def test_a_queue_is_never_fuller_than_allowed(engines: list[PostgresEngine]) -> None:
    async def add(engine: PostgresEngine) -> bool:
        try:
            await engine.enqueue([new(max_queued=10)])
        except QueueFull:
            return False
        return True

    stored = await at_once([add(engines[n % HOSTS]) for n in range(60)])
    assert sum(stored) == 10
    assert (await engines[0].stats()).counts == {("default", State.QUEUED): 10}


@pytest.mark.parametrize("outcome", [Succeeded(), Raised(error=ValueError("no"))])
async def test_a_task_stored_behind_one_that_ends_meanwhile_is_decided_on(
    engines: list[PostgresEngine], outcome: Any
) -> None:
    behind: list[NewTask] = []
    for _ in range(15):
        await engines[0].enqueue([new()])
        [task] = await engines[0].claim(claim(1))
        some = [new(after=task.id) for _ in range(HOSTS - 1)]
        calls: list[Awaitable[Any]] = [engine.enqueue([one]) for engine, one in zip(engines[1:], some, strict=True)]
        calls.insert(Random(len(behind)).randrange(HOSTS), engines[0].finish([end(task, outcome)]))
        await at_once(calls)
        behind += some
        if isinstance(outcome, Succeeded):
            assert await states(engines[0], [one.id for one in some]) == {"queued": HOSTS - 1}
            await engines[0].cancel([one.id for one in some], "out of the way")
    assert await states(engines[0], [one.id for one in behind]) == {"cancelled": len(behind)}


STORE_BEHIND = """
    INSERT INTO afterwards_tasks (id, name, arguments, created_at, state, queue, priority, after)
    VALUES (%s, 'greet', '{}', 1, 'waiting', 'default', 0, %s)
"""


@pytest.mark.parametrize("pooled", ["false", "true"], ids=["direct", "pooled"])
async def test_a_task_stored_behind_one_that_ends_is_decided_on_whatever_isolation_is_the_default(
    postgres_url: str, pooled: str
) -> None:
    isolate(postgres_url)
    async with PostgresEngine(f"{postgres_url}?pgbouncer={pooled}") as engine:
        await engine.enqueue([new()])
        [task] = await engine.claim(claim())
        behind = new(after=task.id)
        with psycopg.connect(postgres_url, autocommit=True) as looking, psycopg.connect(postgres_url) as storing:
            storing.execute("SELECT 1 FROM afterwards_tasks WHERE id = %s FOR SHARE", [task.id])
            ending = asyncio.create_task(engine.finish([end(task)]))
            await until(lambda: looking.execute(WAITING_FOR_A_LOCK).fetchone() == (1,))
            storing.execute(STORE_BEHIND, [behind.id, task.id])
            storing.commit()
            assert await ending == []
        assert await states(engine, [task.id, behind.id]) == {"succeeded": 1, "queued": 1}


@pytest.mark.parametrize("pooled", ["false", "true"], ids=["direct", "pooled"])
async def test_engines_that_start_together_make_the_tables_once_whatever_isolation_is_the_default(
    postgres_url: str, pooled: str
) -> None:
    isolate(postgres_url)
    with psycopg.connect(postgres_url) as holding, psycopg.connect(postgres_url, autocommit=True) as looking:
        holding.execute(schema.TAKE_TURNS)
        both = [PostgresEngine(f"{postgres_url}?pgbouncer={pooled}") for _ in range(2)]
        entering = [asyncio.create_task(engine.__aenter__()) for engine in both]
        await until(lambda: looking.execute(WAITING_FOR_A_LOCK).fetchone() == (2,))
        holding.rollback()
        results = await asyncio.gather(*entering, return_exceptions=True)
        for engine, result in zip(both, results, strict=True):
            if not isinstance(result, BaseException):
                await engine.__aexit__(None, None, None)
    assert results == both


def isolate(url: str) -> None:
    """Let all transactions in a database that name no isolation level have one snapshot from beginning to end."""
    with psycopg.connect(url, autocommit=True) as connection:
        database = sql.Identifier(connection.info.dbname)
        connection.execute(
            sql.SQL("ALTER DATABASE {} SET default_transaction_isolation TO 'repeatable read'").format(database)
        )


@contextmanager
def joined(engine: PostgresEngine, url: str, level: IsolationLevel | None = None) -> Iterator[Joined]:
    """Join a transaction of the application, which commits at the end of the block."""
    with closing(psycopg.connect(url)) as connection:
        connection.isolation_level = level
        found = engine.join(DriverTransaction("postgresql", connection))
        assert found
        yield found
        connection.commit()


@pytest.mark.parametrize("outcome", [Succeeded(), Raised(error=ValueError("no"))])
async def test_an_open_transaction_of_the_application_keeps_no_worker_waiting(
    engines: list[PostgresEngine], postgres_url: str, outcome: Any
) -> None:
    await engines[0].enqueue([new(unique_key="u"), new()])
    twin, other = await engines[0].claim(claim(2))
    behind = new(after=twin.id)
    with joined(engines[1], postgres_url) as transaction:
        transaction.enqueue([behind, new(unique_key="u")])
        beats = [Heartbeat(task.lease) for task in (twin, other)]
        assert len(await engines[0].heartbeat(beats, lease=LEASE)) == 2
        assert await engines[0].finish([end(twin, outcome), end(other)]) == []
    wanted = State.QUEUED if isinstance(outcome, Succeeded) else State.CANCELLED
    await engines[2].expired(1)  # as the maintenance of any worker, which also decides on what was left
    assert [task.state for task in await engines[0].get([behind.id])] == [wanted]


async def test_an_engine_that_nobody_opens_joins_where_the_tables_are_made(postgres_url: str) -> None:
    for _ in range(2):
        with joined(PostgresEngine(postgres_url), postgres_url) as transaction:
            transaction.enqueue([new()])
    async with PostgresEngine(postgres_url) as engine:
        assert sum((await engine.stats()).counts.values()) == 2


async def test_a_snapshot_from_before_the_schema_was_made_sees_the_tables(postgres_url: str) -> None:
    url = f"{postgres_url}?schema=it%27s"
    with psycopg.connect(postgres_url) as connection:
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        connection.execute("SELECT 1")
        async with PostgresEngine(url):
            pass
        joining = PostgresEngine(url).join(DriverTransaction("postgresql", connection))
        assert joining
        joining.enqueue([new()])
    async with PostgresEngine(url) as engine:
        assert sum((await engine.stats()).counts.values()) == 1


@pytest.mark.parametrize("level", [None, IsolationLevel.REPEATABLE_READ])
async def test_transactions_of_applications_that_come_first_together_make_the_tables_once(
    postgres_url: str, level: IsolationLevel | None
) -> None:
    one, other = PostgresEngine(postgres_url), PostgresEngine(postgres_url)

    def come_second() -> None:
        with joined(other, postgres_url, level) as transaction:
            transaction.enqueue([new()])

    with joined(one, postgres_url) as transaction, psycopg.connect(postgres_url, autocommit=True) as looking:
        transaction.enqueue([new()])
        second = asyncio.create_task(asyncio.to_thread(come_second))
        await until(lambda: looking.execute(WAITING_FOR_A_LOCK).fetchone() == (1,))
    await second
    async with one:
        assert sum((await one.stats()).counts.values()) == 2


async def test_an_open_transaction_of_the_application_closes_no_queue(
    engines: list[PostgresEngine], postgres_url: str
) -> None:
    with joined(engines[1], postgres_url) as transaction:
        transaction.enqueue([new(max_queued=2)])
        await engines[0].enqueue([new(max_queued=2)])
    with pytest.raises(QueueFull):
        await engines[0].enqueue([new(max_queued=2)])


class CrossedTransaction(DriverTransaction):
    """A transaction that another one crosses at every try: it has the key whenever this one inserts, and only then."""

    def __init__(self, connection: Any, other: Any) -> None:
        super().__init__("postgresql", connection)
        self.other = other

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Answer:
        key = "u" if "INSERT INTO" in statement else None
        self.other.execute("UPDATE afterwards_tasks SET unique_key = %s WHERE name = 'other'", [key])
        return super().execute(statement, values)


async def test_a_transaction_of_the_application_that_is_crossed_all_the_time_is_told_to_come_again(
    engines: list[PostgresEngine], postgres_url: str
) -> None:
    await engines[0].enqueue([new(name="other")])
    with psycopg.connect(postgres_url) as connection, psycopg.connect(postgres_url, autocommit=True) as other:
        found = engines[0].join(CrossedTransaction(connection, other))
        assert found
        with pytest.raises(EngineUnavailable, match="store the same tasks or keys all the time"):
            found.enqueue([new(unique_key="u")])
        found.enqueue([new()])  # the transaction goes on
    assert sum((await engines[0].stats()).counts.values()) == 2


async def grow(engine: PostgresEngine, last: str) -> list[str]:
    ids = [last]
    for _ in range(3):
        [task] = await engine.enqueue([new(after=ids[-1])])
        ids.append(task.id)
    return ids[1:]


async def test_a_chain_that_grows_while_it_is_cancelled_is_cancelled_as_a_whole(
    engines: list[PostgresEngine],
) -> None:
    for _ in range(15):
        chain = [new()]
        chain += [new(after=chain[-1].id)]
        await engines[0].enqueue(chain)

        *grown, _ = await at_once(
            [*(grow(engine, chain[-1].id) for engine in engines[1:]), engines[0].cancel([chain[0].id], "no")]
        )
        ids = [one.id for one in chain] + [id for some in grown for id in some]
        assert await states(engines[0], ids) == {"cancelled": len(ids)}


async def test_a_fire_has_one_task_whoever_fires_it(engines: list[PostgresEngine]) -> None:
    await engines[0].register_schedules({"greet": "every minute"})
    start = datetime.now(UTC) + timedelta(minutes=1)
    for round in range(10):
        at = start + timedelta(minutes=round)
        stored = await at_once([engine.fire([Fire("greet", at, new())]) for engine in engines])
        assert sum(map(len, stored)) == 1


async def test_a_requeued_task_is_not_pruned(engines: list[PostgresEngine]) -> None:
    for _ in range(15):
        await engines[0].enqueue([new(retention=timedelta()) for _ in range(5)])
        tasks = await engines[0].claim(claim())
        await engines[0].finish([end(task) for task in tasks])
        *_, requeued = await at_once(
            [*(engine.prune(100) for engine in engines[1:]), engines[0].requeue([task.id for task in tasks])]
        )
        assert await states(engines[0], [task.id for task in requeued]) == (
            {"queued": len(requeued)} if requeued else {}
        )
        await engines[0].cancel([task.id for task in requeued], "out of the way")


async def test_whatever_crosses_no_task_is_left_waiting_for_nothing(engines: list[PostgresEngine]) -> None:
    """All kinds of calls at once, and then all that is left is worked off."""
    ids: list[str] = []

    async def meddle(number: int, engine: PostgresEngine) -> None:
        random = Random(number)

        async def add() -> None:
            tasks = [new(after=random.choice(ids) if ids and random.random() < 0.5 else None)]
            while random.random() < 0.6:
                tasks.append(new(after=tasks[-1].id, limit_key=random.choice(["", "*"])))
            key = random.choice([None, None, "u", "v"])
            tasks[0] = new(after=tasks[0].after, unique_key=key, id=tasks[0].id)
            await engine.enqueue(tasks, claim=random.choice([None, claim(2, limits=TWO)]))
            ids.extend(task.id for task in tasks)

        async def work() -> None:
            tasks = await engine.claim(claim(random.randint(1, 8), limits=TWO))
            outcomes = [Succeeded(), Succeeded(), Raised(error=ValueError("no")), Released()]
            await engine.finish([end(task, random.choice(outcomes)) for task in tasks])

        async def cancel() -> None:
            await engine.cancel(random.sample(ids, min(3, len(ids))), "no")

        async def requeue() -> None:
            await engine.requeue(random.sample(ids, min(3, len(ids))))

        steps: list[Callable[[], Awaitable[None]]] = [add, add, add, work, work, cancel, requeue]
        for _ in range(25):
            await random.choice(steps)()

    await at_once([meddle(number, engines[number % HOSTS]) for number in range(2 * HOSTS)])
    engine = engines[0]
    await engine.finish([end(task, Released()) for task in await engine.get(ids) if task.state is State.RUNNING])
    while tasks := await engine.claim(claim(100)):
        await engine.finish([end(task) for task in tasks])
    while await engine._go_on_behind():
        pass
    left = [task for task in await engine.get(ids) if not task.state.finished]
    assert left == []
