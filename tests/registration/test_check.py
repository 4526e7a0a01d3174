"""``tasks.check()``: what the code of this process could not run of what is stored."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import BaseModel, field_validator

from afterwards import Afterwards, Problem, ProblemKind, TaskFunction, engines, task
from afterwards.client.ids import randomness
from afterwards.core.task import NewTask, State, Task, task_id
from afterwards.engine import Claim, Query
from afterwards.engines.memory import MemoryEngine
from afterwards.tasks import compatibility
from face.serving import working

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

SECRET = "hunter2"
UNKNOWN = "no task function has this name or alias"


class Fragile(BaseModel):
    text: str

    @field_validator("text")
    @classmethod
    def look(cls, text: str) -> str:
        if text == SECRET:
            raise KeyError(text)  # not what pydantic expects of a validator
        return text


@task
async def greet(name: str, *, times: int = 1) -> None: ...


@task
async def show(what: Fragile) -> None: ...


@pytest.fixture
async def tasks(url: str) -> AsyncIterator[Afterwards]:
    async with working(url, worker=False) as tasks:
        yield tasks


def call(name: str = "greet", arguments: str = '{"name": "ada"}', **fields: object) -> NewTask:
    id = task_id(datetime.now(UTC), randomness.take(10))
    return NewTask(**{"id": id, "name": name, "arguments": arguments, **fields})  # type: ignore[arg-type]


async def store(tasks: Afterwards, *calls: NewTask) -> list[Task]:
    return await (await tasks.client.open()).enqueue(calls)


async def test_what_fits_is_no_problem(tasks: Afterwards) -> None:
    await greet.enqueue("ada")
    await greet.options(retries=3, timeout=5, delay=60).enqueue("ada", times=2)
    assert await tasks.check() == []


async def test_an_unknown_name_is_found(tasks: Afterwards) -> None:
    [stored] = await store(tasks, call("renamed"))
    assert await tasks.check() == [
        Problem(name="renamed", what=ProblemKind.NAME, reason=UNKNOWN, count=1, example=stored.id)
    ]


async def test_a_changed_signature_is_found_parameter_by_parameter_without_values(tasks: Afterwards) -> None:
    await store(
        tasks,
        call(arguments=f'{{"name": "ada", "times": "{SECRET}"}}'),
        call(arguments=f'{{"user": "{SECRET}"}}'),
        call(arguments=f'{{"name": "ada", "password": "{SECRET}"}}'),
        call("show", f'{{"what": {{"text": "{SECRET}"}}}}'),
    )
    found = await tasks.check()
    assert {(one.name, one.what, one.reason) for one in found} == {
        (
            "greet",
            ProblemKind.ARGUMENTS,
            'parameter "times": Input should be a valid integer, unable to parse string as an integer',
        ),
        ("greet", ProblemKind.ARGUMENTS, 'parameter "name": it has no default, and is not stored'),
        ("greet", ProblemKind.ARGUMENTS, 'parameter "password": it is stored, and the function has no such parameter'),
        ("show", ProblemKind.ARGUMENTS, "reading them raises KeyError"),
    }
    assert SECRET not in "".join(map(str, found)) + repr(found)


@pytest.mark.parametrize(
    "overrides", ['{"colour": 1}', '{"retries": {"colour": 1}}', '{"timeout": -1}', "[]", "3", "{"]
)
async def test_options_that_nobody_understands_are_found(tasks: Afterwards, overrides: str) -> None:
    await store(tasks, call(overrides=overrides))
    found = await tasks.check()
    assert [one.what for one in found] == [ProblemKind.OPTIONS]
    assert "colour" not in found[0].reason


async def test_every_unfinished_state_is_looked_at_and_no_finished_one(tasks: Afterwards) -> None:
    first = call("old")
    await store(tasks, first, call("old", after=first.id), call("old", wait=timedelta(hours=1)), call("old"))
    engine = await tasks.client.open()
    await engine.claim(
        Claim(worker="old", limit=1, lease=timedelta(minutes=1), names=frozenset({"old"}), ids=frozenset({first.id}))
    )
    await engine.cancel([one.id for one in await store(tasks, call("older"))], "no")
    assert {one.state for one in await engine.find(Query())} == {*State} - {State.SUCCEEDED, State.FAILED}
    assert [(one.name, one.count) for one in await tasks.check()] == [("old", 4)]


async def test_thousands_give_a_short_answer(tasks: Afterwards, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compatibility, "UNFINISHED", compatibility.replace(compatibility.UNFINISHED, limit=7))
    await store(tasks, *(call("old") for _ in range(50)), *(call() for _ in range(50)))
    await store(tasks, *(call(arguments=f'{{"name": {number}}}') for number in range(48)))
    assert [(one.name, one.what, one.count) for one in await tasks.check()] == [
        ("greet", ProblemKind.ARGUMENTS, 48),
        ("old", ProblemKind.NAME, 50),
    ]


async def test_it_changes_nothing(tasks: Afterwards) -> None:
    await store(tasks, call("old"), call(arguments="{}"), call(wait=timedelta(hours=1)))
    engine = await tasks.client.open()
    before = await engine.find(Query())
    await tasks.check()
    assert await engine.find(Query()) == before


class Pruning(MemoryEngine):
    """Where the tasks that a page ended with are finished and pruned before the next page is asked for."""

    most = 0

    async def find(self, query: Query) -> list[Task]:
        page = await super().find(query)
        self.most = max(self.most, len(page))
        for gone in page[-2:] if len(page) == query.limit else []:
            await super().cancel([gone.id], "no")
            await super().prune(10)
        return page


@pytest.fixture
def pruning() -> Iterator[Pruning]:
    engine = Pruning()
    with engines.replaced(lambda url: engine):
        yield engine


async def test_a_task_that_is_pruned_meanwhile_does_not_end_the_reading(
    pruning: Pruning, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compatibility, "UNFINISHED", compatibility.replace(compatibility.UNFINISHED, limit=5))
    async with working("memory://", worker=False) as tasks:
        await store(tasks, *(call("old", retention=timedelta()) for _ in range(23)))
        [found] = await tasks.check()
    assert (found.count, pruning.most) == (23, 5)


@pytest.fixture
def welcome() -> TaskFunction[[str], object, None]:
    """A function that was renamed."""

    async def welcome(name: str) -> None: ...

    return task(name="welcome", aliases=["greet_before"])(welcome)


async def test_an_old_name_is_known_by_its_alias(tasks: Afterwards, welcome: TaskFunction[[str], object, None]) -> None:
    await store(tasks, call("greet_before"), call("greet_long_before"), call("greet_before", "{}"))
    assert [(one.name, one.what) for one in await tasks.check()] == [
        ("greet_before", ProblemKind.ARGUMENTS),
        ("greet_long_before", ProblemKind.NAME),
    ]
