"""An application's tests of what its tasks do when processes die."""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from afterwards import BackgroundTasks, FailedTask, TaskRecord, task
from afterwards.core.errors import InvalidOption
from afterwards.core.task import FailureKind, State, Task
from afterwards.execution.context import TaskContext
from afterwards.testing import (
    Crash,
    allow_retries,
    assert_enqueued,
    assert_not_enqueued,
    crash_at,
    drain,
    drain_async,
    run_twice,
)
from afterwards.testing.inline import memory
from testing.application import app

said: list[str] = []
charged: dict[str, int] = {}
balance: list[int] = []


@task
def add_up(amount: int) -> None:
    """Not idempotent."""
    balance.append(amount)


@task
async def charge(order: str, amount: int) -> int:
    """Idempotent: by its key."""
    charged[order] = amount
    return amount


@task(retries=1)
async def note(text: str, ctx: TaskContext) -> None:
    said.append(f"{text}, attempt {ctx.attempt}")
    if text == "flaky" and said.count(f"{text}, attempt 1") == len(said):
        raise ConnectionError("away")


@task
async def told(failed: FailedTask) -> None:
    said.append(f"told of {failed.name}: {failed.kind}")


@task(rerun_after_crash=False, on_failure=told)
async def once(text: str) -> None:
    said.append(text)


@task(on_failure=told)
async def hopeless() -> None:
    said.append("hopeless")
    raise ValueError("no")


@task
def calling(text: str) -> None:
    """Makes a request of its own, as one that tests its application's own API."""
    said.append("calling")
    TestClient(app).post(f"/note/{text}").raise_for_status()


@app.post("/add/{amount}")
def add(amount: int, background_tasks: BackgroundTasks) -> None:
    background_tasks.add_task(add_up, amount)


@app.post("/charge/{order}/{amount}")
def pay(order: str, amount: int, background_tasks: BackgroundTasks) -> None:
    background_tasks.add_task(charge, order, amount)


@app.post("/note/{text}")
def noted(text: str, background_tasks: BackgroundTasks) -> None:
    background_tasks.add_task(note, text)


@app.post("/both")
def both(background_tasks: BackgroundTasks) -> None:
    background_tasks.add_task(note, "first")
    background_tasks.add_task(note, "second")


@app.post("/once")
def only_once(background_tasks: BackgroundTasks) -> None:
    background_tasks.add_task(once, "once")
    background_tasks.add_task(note, "behind")


@app.post("/call/{text}")
def call(text: str, background_tasks: BackgroundTasks) -> None:
    background_tasks.add_task(calling, text)


@app.post("/break")
def break_it(background_tasks: BackgroundTasks) -> None:
    background_tasks.add_task(hopeless)


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    said.clear()
    charged.clear()
    balance.clear()


@pytest.fixture
def client() -> TestClient:
    return TestClient(app)


def as_stored(record: TaskRecord) -> Task:
    [task] = [task for task in memory().tasks if task.id == record.id]
    return task


def kinds(record: TaskRecord | Task) -> list[tuple[int, FailureKind]]:
    return [(failure.attempt, failure.kind) for failure in record.failures]


def test_a_function_that_is_not_idempotent_is_caught(client: TestClient) -> None:
    with run_twice():
        client.post("/add/5")
    with pytest.raises(AssertionError):
        assert balance == [5]
    assert balance == [5, 5]


def test_an_idempotent_function_passes(client: TestClient) -> None:
    with run_twice():
        client.post("/charge/7/100")
    assert charged == {"7": 100}
    record = assert_enqueued(charge)
    assert (record.state, record.attempt, record.result, kinds(record)) == (
        State.SUCCEEDED,
        2,
        100,
        [(1, FailureKind.CRASHED)],
    )


def test_only_what_is_named_runs_twice(client: TestClient) -> None:
    with run_twice(charge):
        client.post("/charge/7/100")
        client.post("/add/5")
    assert balance == [5]
    assert assert_enqueued(charge).attempt == 2


def test_each_task_runs_twice_before_the_one_behind_it(client: TestClient) -> None:
    with run_twice():
        client.post("/both")
    assert said == [f"{text}, attempt {n}" for text in ("first", "second") for n in (1, 2)]


def test_a_task_runs_twice_after_it_succeeded_however_often_it_failed_before(client: TestClient) -> None:
    with run_twice(), allow_retries():
        client.post("/note/flaky")
        drain(scheduled=True)
    assert said == [f"flaky, attempt {n}" for n in (1, 2, 3)]
    assert kinds(assert_enqueued(note)) == [(1, FailureKind.RAISED), (2, FailureKind.CRASHED)]


def test_the_tasks_of_requests_that_tasks_make_run_twice_too(client: TestClient) -> None:
    with run_twice():
        client.post("/call/inner")
    assert said == [one for _ in (1, 2) for one in ("calling", "inner, attempt 1", "inner, attempt 2")]


@pytest.mark.anyio
async def test_what_is_drained_runs_twice_too() -> None:
    await note.enqueue("drained")
    with run_twice():
        await drain_async()
    assert said == ["drained, attempt 1", "drained, attempt 2"]


def test_after_the_block_tasks_run_once_again(client: TestClient) -> None:
    with pytest.raises(KeyError), run_twice():
        raise KeyError
    client.post("/add/5")
    assert balance == [5]


def test_what_must_never_run_again_does_not(client: TestClient) -> None:
    with run_twice():
        client.post("/once")
    assert said == ["once", "behind, attempt 1", "behind, attempt 2"]


@pytest.mark.parametrize("point", [Crash.START, "start"])
def test_an_attempt_crashes_before_its_function_is_called(client: TestClient, point: Crash) -> None:
    with crash_at(note, point):
        client.post("/both")
    assert said == ["first, attempt 2", "second, attempt 2"]
    record = as_stored(assert_enqueued(note, text="first"))
    assert (record.state, record.failed, record.crashed, kinds(record)) == (
        State.SUCCEEDED,
        0,
        0,
        [(1, FailureKind.CRASHED)],
    )


def test_an_attempt_crashes_after_its_function_returned(client: TestClient) -> None:
    with crash_at(note, "end"):
        client.post("/note/a")
    assert said == ["a, attempt 1", "a, attempt 2"]
    assert kinds(assert_enqueued(note)) == [(1, FailureKind.CRASHED)]


def test_a_failure_that_its_crash_left_unrecorded_takes_no_retry(client: TestClient) -> None:
    with crash_at(note, "end"):
        client.post("/note/flaky")
    assert said == ["flaky, attempt 1", "flaky, attempt 2"]
    assert as_stored(assert_enqueued(note)).failed == 0


def test_a_task_that_survives_some_crashes_is_no_suspect_any_more(client: TestClient) -> None:
    with crash_at(note, "start", times=3):
        client.post("/note/a")
    record = as_stored(assert_enqueued(note))
    assert said == ["a, attempt 4"]
    assert (record.state, record.crashed, record.suspect) == (State.SUCCEEDED, 2, False)


def test_the_fourth_crash_ends_a_task_as_failed(client: TestClient) -> None:
    with crash_at(note, "start", times=4):
        client.post("/both")
    assert said == []
    first, second = as_stored(assert_enqueued(note, text="first")), assert_enqueued(note, text="second")
    assert (first.state, first.attempt, first.crashed) == (State.FAILED, 4, 3)
    assert second.state is State.CANCELLED


@pytest.mark.parametrize(("point", "run"), [("start", []), ("end", ["once"])])
def test_what_must_never_run_again_ends_as_failed_and_tells(client: TestClient, point: Crash, run: list[str]) -> None:
    with crash_at(once, point):
        client.post("/once")
    assert said == [*run, "told of once: crashed"]
    assert assert_enqueued(once).state is State.FAILED
    assert assert_enqueued(note).state is State.CANCELLED


def test_a_failure_after_a_crash_raises_into_the_test_and_tells(client: TestClient) -> None:
    with crash_at(hopeless, "start"), pytest.raises(ValueError, match="no"):
        client.post("/break")
    assert said == ["hopeless", "told of hopeless: raised"]


def test_crashes_add_up(client: TestClient) -> None:
    with run_twice(), crash_at(note, "start"), crash_at(note, "end"):
        client.post("/note/a")
    assert said == ["a, attempt 2", "a, attempt 3", "a, attempt 4"]


class TestWithinAFixtureOfAClass:
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def everything_twice(cls) -> Iterator[None]:
        with run_twice():
            yield

    @pytest.mark.parametrize("test", [1, 2])
    def test_every_tests_tasks_run_twice(self, client: TestClient, test: int) -> None:
        client.post("/add/5")
        assert balance == [5, 5]


def plain() -> None: ...


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (lambda: crash_at(note, "middle"), r"crash_at\(\.\.\., 'middle'\): give \"start\" or \"end\""),  # type: ignore[arg-type]
        (lambda: crash_at(note, "end", times=0), "times=0: give"),
        (lambda: crash_at(note, "end", times=True), "times=True: give"),
        (lambda: crash_at(plain, "end"), "give a task function"),  # type: ignore[arg-type]
        (lambda: run_twice(plain), "give a task function"),  # type: ignore[arg-type]
        (lambda: run_twice(once), r"run_twice\(once\): with rerun_after_crash=False"),
    ],
)
def test_a_mistake_is_named(block, message: str) -> None:
    with pytest.raises(InvalidOption, match=message), block():
        pass


@pytest.mark.afterwards(real=True)
def test_where_a_real_worker_runs_there_is_nothing_to_crash() -> None:
    with pytest.raises(RuntimeError, match="real=True"), run_twice():
        pass


def test_a_call_without_crashes_is_recorded_as_ever(client: TestClient) -> None:
    client.post("/note/a")
    assert assert_enqueued(note).failures == ()
    assert_not_enqueued(charge)
