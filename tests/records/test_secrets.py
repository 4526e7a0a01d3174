"""Secrets among the arguments of task functions: found once, stored, and shown nowhere."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Optional

import pytest
from fastapi import Depends, FastAPI
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import BaseModel, SecretBytes, SecretStr
from pydantic import Secret as PydanticSecret
from typing_extensions import TypedDict

from afterwards import (
    Afterwards,
    BackgroundTasks,
    Cancel,
    FailedTask,
    Retry,
    Secret,
    State,
    TaskFailed,
    TaskFunction,
    TaskRecord,
    progress,
    task,
)
from afterwards.engine import Query
from face.serving import an_engine, finished, records, serving, until, until_async, working

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

CANARY = "Kanarienvogel-7f3"


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"memory://{tmp_path.name}" if request.param == "memory" else an_engine(tmp_path)


class Login(BaseModel):
    name: str
    pin: SecretStr


class Tree(BaseModel):
    children: list["Tree"] = []
    leaf: SecretBytes | None = None


@dataclass
class Account:
    owner: str
    keys: dict[str, SecretStr]


class Settings(TypedDict):
    url: str
    api_key: str


class Marked(BaseModel):
    number: Annotated[int, Secret()]


FIVE = PydanticSecret(5)


def a_token() -> str:
    return CANARY


@task
async def plain_values(email: str, count: int, tags: list[str]) -> str: ...  # type: ignore[empty-body]


@task
async def secret_values(
    one: SecretStr,
    two: SecretBytes | None,
    three: list[SecretStr],
    four: Optional[dict[str, SecretStr]] = None,  # noqa: UP045  # both ways are written
    five: PydanticSecret[int] = FIVE,
) -> None: ...


@task
async def marked_values(
    one: Annotated[str, Secret()], two: Annotated[Login, Secret()], three: Marked, four: str
) -> None: ...


@task
async def named_values(
    password: str, api_key: str | None, access_token: str, max_tokens: int, secretary: str
) -> None: ...


@task
async def within_types(login: Login, tree: Tree, accounts: list[Account], settings: Settings) -> None: ...


@task
async def secret_result() -> SecretStr: ...  # type: ignore[empty-body]


@task
async def result_with_a_secret() -> Login: ...  # type: ignore[empty-body]


@task
async def with_a_dependency(name: str, token: Annotated[str, Depends(a_token)] = "") -> None: ...


@pytest.mark.parametrize(
    ("function", "secrets"),
    [
        (plain_values, ()),
        (secret_values, ("one", "two", "three", "four", "five")),
        (marked_values, ("one", "two", "three.number")),
        (named_values, ("password", "api_key", "access_token")),
        (within_types, ("login.pin", "tree.leaf", "accounts.keys", "settings.api_key")),
        (secret_result, ("return",)),
        (result_with_a_secret, ("return.pin",)),
        (with_a_dependency, ()),
    ],
    ids=lambda one: getattr(one, "name", ""),
)
async def test_secrets_are_found_in_the_types_and_names_of_a_function(
    url: str, function: TaskFunction[Any, Any, Any], secrets: tuple[str, ...]
) -> None:
    assert function.calls.secrets == secrets
    assert function.options(delay=5).calls.secrets == secrets


async def test_a_mark_without_a_type_is_a_clear_error() -> None:
    with pytest.raises(TypeError, match=r"write Annotated\[str, Secret\(\)\]"):

        @task
        async def f(key: Secret) -> None: ...


received: list[Any] = []


@task
async def receive(one: SecretStr, two: list[SecretBytes], three: Login, four: Annotated[str, Secret]) -> None:
    received[:] = [one, two, three, four]


async def test_the_function_gets_its_secrets_as_they_were_given(url: str) -> None:
    given = [
        SecretStr(CANARY),
        [SecretBytes(b"\xffbytes"), SecretBytes(b"")],
        Login(name="a", pin=SecretStr("12")),
        "x",
    ]
    async with working(url):
        await (await receive.enqueue(*given)).result(timeout=5)  # type: ignore[arg-type]
    assert received == given


async def test_secrets_are_stored_with_the_task(url: str) -> None:
    async with working(url, worker=False) as tasks:
        await named_values.enqueue(CANARY, None, "t", 5, "Ann")
        [stored] = await records(tasks)
        assert stored.secrets == ("password", "api_key", "access_token")
        assert json.loads(stored.arguments)["password"] == CANARY
        assert await tasks.list(text=CANARY) == []  # a search would tell it letter by letter
        assert [one.name for one in await tasks.list(text="NAMED_VAL")] == ["named_values"]


told: list[FailedTask] = []


def tell(failed: FailedTask) -> None:
    told.append(failed)


@task(on_failure=tell)
async def leak(
    key: SecretStr, login: Login, password: str, others: dict[str, Any], token: Annotated[str, Secret()]
) -> str:
    with progress(total=5, desc=f"using {key.get_secret_value()}") as bar:
        bar.note = f"noted {password}"
        bar.update(1)
    raise ValueError(
        f"no luck with {key.get_secret_value()}, {login.pin.get_secret_value()}, {password!r}, {others}, {token}"
    )


@task
async def echo(password: str) -> dict[str, Any]:
    return {"was": password, "length": len(password)}


@task
async def give_up(password: str) -> None:
    raise Cancel(f"will not use {password}")


@task(retries=Retry(1, wait=0))
async def try_twice(password: str) -> None:
    raise ValueError(password)


def canaries() -> tuple[Any, ...]:
    return (
        SecretStr(CANARY),
        Login(name="Ann", pin=SecretStr(CANARY + "-pin")),
        CANARY + "-password",
        {"deep": [{"authorization": CANARY + "-deep"}]},
        CANARY + "-token",
    )


def shown_forms(record: TaskRecord) -> str:
    return json.dumps([record.as_json(), record.redacted().as_json(), repr(record.redacted())])


async def test_no_record_and_no_log_line_shows_the_canary(url: str, caplog: pytest.LogCaptureFixture) -> None:
    told.clear()
    caplog.set_level(logging.DEBUG)
    async with working(url) as tasks:
        for handle in (
            await leak.enqueue(*canaries()),
            await echo.enqueue(CANARY),
            await give_up.enqueue(CANARY),
            await try_twice.enqueue(CANARY),
        ):
            record = await finished(handle)
            assert CANARY in json.dumps(record.arguments)  # the application itself may read it
            assert CANARY not in shown_forms(record)
            if record.state is not State.SUCCEEDED:
                with pytest.raises(TaskFailed) as failed:
                    await handle.result(timeout=5)
                assert CANARY not in str(failed.value)
        for listed in await tasks.list():
            assert CANARY not in shown_forms(listed)
        await until(lambda: told)
    assert CANARY not in repr(told)
    assert "no luck with [hidden]" in caplog.text
    assert "raise ValueError(" in caplog.text  # the traceback is there
    assert CANARY not in caplog.text


async def test_a_failure_without_secrets_is_logged_with_its_exception(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with working(url):
        await finished(await leak.enqueue(SecretStr("none"), Login(name="a", pin=SecretStr("n")), "n", {}, "n"))
        await finished(await fails_openly.enqueue("in the open"))
    [line] = [one for one in caplog.records if "in the open" in one.getMessage()]
    assert line.exc_info is not None


@task
async def fails_openly(text: str) -> None:
    raise ValueError(text)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter
    provider.shutdown()


async def test_no_span_shows_the_canary(url: str, spans: InMemorySpanExporter) -> None:
    async with working(url):
        with trace.get_tracer("test").start_as_current_span("request"):
            handle = await leak.enqueue(*canaries())
            open_handle = await fails_openly.enqueue("in the open")
        await finished(handle)
        await finished(open_handle)
    written = [one.to_json() for one in spans.get_finished_spans()]
    assert any("no luck with [hidden]" in one and "exception.stacktrace" in one for one in written)
    assert any("in the open" in one and "exception.stacktrace" in one for one in written)
    assert CANARY not in str(written)


@task
async def be_told(failed: FailedTask) -> None: ...


@task(on_failure=be_told)
async def leak_to_a_task(password: str) -> None:
    raise ValueError(password)


async def test_the_task_of_on_failure_holds_no_secret(url: str) -> None:
    async with working(url) as tasks:
        await finished(await leak_to_a_task.enqueue(CANARY))
        await until_notice(tasks)
        [notice] = await tasks.list(name=be_told)
    assert notice.arguments["failed"]["message"] == "[hidden]"
    assert CANARY not in json.dumps(notice.arguments)


async def until_notice(tasks: Afterwards) -> None:
    [notice] = await (await tasks.client.open()).find(Query(names=frozenset({"be_told"})))
    await finished(await tasks.get(notice.id))


def fail_plainly(email: str, password: str, key: SecretStr, other: SecretBytes) -> None:
    raise ValueError(f"{email}: {password} {key.get_secret_value()} {other.get_secret_value()!r}")


async def test_the_failure_of_a_plain_function_is_stored_without_its_secrets(url: str) -> None:
    app = FastAPI()
    tasks = Afterwards(app, url)

    @app.post("/")
    async def handler(background_tasks: BackgroundTasks) -> None:
        key, other = SecretStr(CANARY + "-key"), SecretBytes(CANARY.encode() + b"-other")
        background_tasks.add_task(fail_plainly, "a@b.c", CANARY, key=key, other=other)

    async with serving(app) as http:
        await http.post("/")
        [record] = await until_async(lambda: tasks.list(state="failed"))
        stored = await records(tasks)
    assert record.failures[0].message == "a@b.c: [hidden] [hidden] b'[hidden]'"
    assert CANARY not in repr(stored)
