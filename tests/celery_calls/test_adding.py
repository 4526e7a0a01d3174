"""Celery tasks that an application has already are added like others, and sent before the response begins."""

from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import fastapi
import pytest
from celery import Celery, shared_task
from fastapi import Depends, FastAPI, Response, WebSocket
from fastapi.responses import StreamingResponse
from sqlalchemy.orm import Session
from starlette.background import BackgroundTask

from afterwards import Afterwards, BackgroundTasks, InvalidOption, NotStored, UnstorableArgument, chain
from afterwards.core.errors import NotAFunction
from afterwards.dispatch.celery.handle import CeleryHandle
from celery_calls.broker import an_application, messages, sent
from face.diary import note, plain
from face.serving import records, serving, until
from face.test_websockets import talking

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


@pytest.fixture
def fleet() -> Celery:
    return an_application()


@pytest.fixture
def mail(fleet: Celery) -> Any:
    @fleet.task(name="mail", shared=False)
    def mail(address: str, copies: int = 1) -> str:
        return f"{address} x {copies}"

    return mail


@pytest.fixture
def app(url: str) -> Iterator[FastAPI]:
    app = FastAPI()
    app.state.tasks = Afterwards(app, url)
    yield app


async def test_it_is_sent_before_the_response_begins(app: FastAPI, fleet: Celery, mail: Any) -> None:
    @app.post("/")
    async def handler(background_tasks: fastapi.BackgroundTasks) -> dict[str, str]:
        handle: Any = background_tasks.add_task(mail, "ada", copies=2)
        assert messages(fleet) == []
        return {"id": handle.id}

    async with serving(app) as http:
        answer = await http.post("/")
        [(headers, body)] = messages(fleet)
    assert (headers["id"], headers["task"], body[:2]) == (answer.json()["id"], "mail", [["ada"], {"copies": 2}])


async def test_a_handle_is_an_answer(app: FastAPI, fleet: Celery, mail: Any) -> None:
    @app.post("/")
    async def handler(background_tasks: BackgroundTasks) -> CeleryHandle[str]:
        return background_tasks.add_task(mail, "ada")  # type: ignore[no-any-return]

    async with serving(app) as http:
        answer = await http.post("/")
        [(headers, _)] = messages(fleet)
    assert answer.json() == {"id": headers["id"]}


async def test_nothing_is_sent_if_the_handler_raises(app: FastAPI, fleet: Celery, mail: Any) -> None:
    @app.post("/")
    async def handler(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(mail, "ada")
        raise fastapi.HTTPException(418)

    async with serving(app) as http:
        assert (await http.post("/")).status_code == 418
    assert messages(fleet) == []


async def test_calls_are_sent_in_the_order_added_and_ours_are_stored(
    app: FastAPI, fleet: Celery, mail: Any, said: list[str]
) -> None:
    @app.post("/")
    async def handler(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(mail, "first")
        background_tasks.add_task(note, "ours")
        background_tasks.add_task(plain, "plain")
        background_tasks.add_task(mail, "second")

    async with serving(app) as http:
        assert (await http.post("/")).status_code == 200
        await until(lambda: sorted(said) == ["ours", "plain"])
    assert [args for _, args, _ in sent(fleet)] == [["first"], ["second"]]


async def test_lazy_proxies_signatures_and_partials_are_calls_too(app: FastAPI) -> None:
    fleet = an_application()
    fleet.set_current()

    @shared_task(name="shared")
    def shared(number: int) -> None: ...

    @fleet.task(name="lazy", shared=False)
    def lazy(number: int) -> None: ...

    @app.post("/")
    async def handler(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(shared, 1)
        background_tasks.add_task(lazy, 2)
        background_tasks.add_task(lazy.s(3))
        background_tasks.add_task(lazy.s().set(queue="express"), 4)
        background_tasks.add_task(partial(lazy, 5))
        background_tasks.tasks.append(BackgroundTask(lazy, 6))
        background_tasks.add_task(fleet.signature("known.to.workers", args=(7,)))

    async with serving(app) as http:
        assert (await http.post("/")).status_code == 200
    assert [(name, args) for name, args, _ in sent(fleet)] == [
        ("shared", [1]),
        ("lazy", [2]),
        ("lazy", [3]),
        ("lazy", [5]),
        ("lazy", [6]),
        ("known.to.workers", [7]),
    ]
    assert sent(fleet, "express") == [("lazy", [4], {})]


async def test_arguments_are_checked_where_they_are_given(app: FastAPI, fleet: Celery, mail: Any) -> None:
    raised: list[Exception] = []

    @app.post("/")
    async def handler(background_tasks: BackgroundTasks) -> None:
        for args, kwargs in (((), {}), (("ada", object()), {}), ((), {"address": object()})):
            with pytest.raises((TypeError, UnstorableArgument)) as caught:
                background_tasks.add_task(mail, *args, **kwargs)
            raised.append(caught.value)
        background_tasks.add_task(mail, "good")

    async with serving(app) as http:
        assert (await http.post("/")).status_code == 200
    missing, second, first = map(str, raised)
    assert "missing 1 required positional argument: 'address'" in missing
    assert second.startswith('task "mail", parameter "copies": Celery\'s serializer cannot write it: ')
    assert first.startswith('task "mail", parameter "address": ')
    assert [args for _, args, _ in sent(fleet)] == [["good"]]


async def test_a_workflow_of_several_messages_is_refused(mail: Any, app: FastAPI) -> None:
    async with app.router.lifespan_context(app):
        with pytest.raises(InvalidOption, match="add a Celery task that starts it"):
            BackgroundTasks().add_task(mail.s("ada") | mail.s("eve"))


async def test_objects_made_by_hand_are_sent_before_the_response(app: FastAPI, fleet: Celery, mail: Any) -> None:
    @app.post("/")
    async def handler() -> Response:
        made = BackgroundTasks()
        made.add_task(mail, "ada")
        return Response(background=made)

    async with serving(app) as http:
        await http.post("/")
        assert len(messages(fleet)) == 1


async def test_outside_a_request_flush_sends(app: FastAPI, fleet: Celery, mail: Any, said: list[str]) -> None:
    async with app.router.lifespan_context(app):
        made = BackgroundTasks()
        handle = made.add_task(mail, "ada")
        made.add_task(note, "ours")
        assert isinstance(handle, CeleryHandle)
        with pytest.raises(NotStored):
            await handle.cancel()
        await made.flush()
        await made()
        assert len(messages(fleet)) == 1
        await until(lambda: said == ["ours"])


async def test_what_is_added_late_is_sent_at_once(app: FastAPI, fleet: Celery, mail: Any) -> None:
    async def closing(background_tasks: BackgroundTasks) -> AsyncIterator[None]:
        yield
        background_tasks.add_task(mail, "exit")

    @app.post("/", dependencies=[Depends(closing)])
    async def handler(background_tasks: BackgroundTasks) -> Response:
        async def stream() -> AsyncIterator[str]:
            background_tasks.add_task(mail, "stream")
            yield "text"
            [(_, [text], _)] = await until(lambda: sent(fleet))
            yield text

        return StreamingResponse(stream())

    @app.websocket("/talk")
    async def talk(websocket: WebSocket, background_tasks: BackgroundTasks) -> None:
        await websocket.accept()
        background_tasks.add_task(mail, "websocket")
        [(_, [text], _)] = await until(lambda: sent(fleet))
        await websocket.send_text(text)

    async with serving(app) as http:
        assert (await http.post("/")).text == "textstream"
        await until(lambda: [args for _, args, _ in sent(fleet)] == [["exit"]])
        async with talking(http, "/talk") as connection:
            assert await connection.recv() == "websocket"


async def test_no_transaction_can_contain_it(app: FastAPI, mail: Any, fleet: Celery) -> None:
    @app.post("/")
    async def handler(background_tasks: BackgroundTasks) -> None:
        background_tasks.configure(session=Session())
        with pytest.raises(InvalidOption, match="no transaction of a session can contain a Celery message"):
            background_tasks.add_task(mail, "ada")

    async with serving(app) as http:
        assert (await http.post("/")).status_code == 200
    assert messages(fleet) == []


async def test_enqueue_sends_or_stores_now(app: FastAPI, fleet: Celery, mail: Any, said: list[str]) -> None:
    tasks: Afterwards = app.state.tasks
    async with app.router.lifespan_context(app):
        theirs = await tasks.enqueue(mail, "ada", copies=2)
        ours = await tasks.enqueue(note.options(priority=5), "ours")
        [(headers, body)] = messages(fleet)
        assert (headers["id"], body[:2]) == (theirs.id, [["ada"], {"copies": 2}])
        assert await ours.result(timeout=30) == "ours"
        assert [task.priority for task in await records(tasks)] == [5]
        with pytest.raises(NotAFunction, match="give a @task function or a Celery task"):
            await tasks.enqueue(plain, "text")  # type: ignore[call-overload]


async def test_eager_tasks_run_before_the_response_and_the_handle_has_their_result(app: FastAPI) -> None:
    fleet = an_application(task_always_eager=True)

    @fleet.task(name="double", shared=False)
    def double(number: int) -> int:
        if number < 0:
            raise ValueError("negative")
        return number * 2

    handles: list[Any] = []

    @app.post("/{number}")
    async def handler(number: int, background_tasks: BackgroundTasks) -> None:
        handles.append(background_tasks.add_task(double, number))

    async with serving(app) as http:
        assert (await http.post("/21")).status_code == 200
        assert (await handles[0].status(), await handles[0].result()) == ("SUCCESS", 42)
        assert (await http.post("/-1")).status_code == 200
        assert await handles[1].status() == "FAILURE"
        fleet.conf.task_eager_propagates = True
        assert (await http.post("/-1")).status_code == 500


async def test_several_at_once_are_refused_with_what_to_write(app: FastAPI, mail: Any) -> None:
    for given in (mail, mail.s("ada")):
        with pytest.raises(InvalidOption, match=r"found a Celery task.*`await tasks\.enqueue\(celery_task, 1\)`"):
            await app.state.tasks.enqueue_many([given])
        with pytest.raises(InvalidOption, match="found a Celery task"):
            await chain(given)
