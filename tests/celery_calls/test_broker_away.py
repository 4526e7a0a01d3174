"""A broker that is away, hangs or refuses: the request is answered with 503 soon, and nothing of it runs."""

from collections.abc import Iterator
from contextlib import ExitStack
from time import monotonic
from typing import Any

import pytest
from celery import Celery
from fastapi import FastAPI, Response
from fastapi.testclient import TestClient
from kombu.exceptions import OperationalError
from kombu.transport.virtual import Channel

from afterwards import Afterwards, BackgroundTasks, State, task
from afterwards.core.errors import BrokerUnavailable
from afterwards.dispatch.celery.delivery import WITHIN
from afterwards.web.durable_calls import NOT_SENT
from celery_calls.broker import an_address_where_nobody_listens, an_application, one_that_hangs, sent
from face.diary import note
from face.serving import records, serving, until

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


@pytest.fixture(params=["amqp refuses", "amqp hangs", "redis refuses", "redis hangs"])
def away(request: pytest.FixtureRequest) -> Iterator[Celery]:
    transport, how = request.param.split()
    with ExitStack() as stack:
        address = stack.enter_context(one_that_hangs()) if how == "hangs" else an_address_where_nobody_listens()
        yield an_application(f"{transport}://:secret@{address}")


@pytest.fixture
def app(url: str) -> FastAPI:
    app = FastAPI()
    app.state.tasks = Afterwards(app, url)
    return app


@task(unique=True)
async def only_once(number: int) -> None: ...


def a_task(fleet: Celery) -> Any:
    @fleet.task(name="mail", shared=False)
    def mail(address: str) -> None: ...

    return mail


async def test_the_request_is_refused_and_what_it_stored_is_cancelled(
    app: FastAPI, away: Celery, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    mail = a_task(away)

    @app.post("/")
    async def handler(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "first")
        background_tasks.add_task(mail, "ada")
        background_tasks.add_task(note, "second")

    @app.post("/by-hand")
    async def by_hand() -> Response:
        made = BackgroundTasks()
        made.add_task(note, "third")
        made.add_task(mail, "ada")
        return Response(background=made)

    @app.post("/enqueue")
    async def enqueue() -> None:
        await app.state.tasks.enqueue(mail, "ada")

    async with serving(app) as http:
        for path in ("/", "/by-hand", "/enqueue"):
            begun = monotonic()
            answer = await http.post(path)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert answer.json() == {"detail": "The message broker is unavailable"}
            assert monotonic() - begun < WITHIN + 30  # it would hang for ever
        stored = await records(app.state.tasks)
        assert [task.state for task in stored] == [State.CANCELLED] * 3
        assert [task.reason for task in stored if task.after is None] == [NOT_SENT] * 2
        await note.enqueue("last")
        await until(lambda: "last" in said)
    assert said == ["last"]
    assert "secret" not in caplog.text
    assert "Traceback" not in caplog.text  # it would be the same for each request


async def test_outside_a_request_no_task_starts_before_the_broker_has_accepted_the_others(
    app: FastAPI, away: Celery, said: list[str]
) -> None:
    async with app.router.lifespan_context(app):
        made = BackgroundTasks()
        made.add_task(note, "ours")
        made.add_task(a_task(away), "ada")
        with pytest.raises(BrokerUnavailable, match='Celery task "mail" was not sent'):
            await made.flush()
        [stored] = await records(app.state.tasks)
        assert stored.state is State.CANCELLED
    assert said == []


async def test_a_task_for_which_another_one_stands_is_not_cancelled(app: FastAPI) -> None:
    mail = a_task(an_application(f"amqp://{an_address_where_nobody_listens()}"))

    @app.post("/")
    async def handler(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(only_once, 1)
        background_tasks.add_task(mail, "ada")

    async with serving(app) as http:
        earlier = await only_once.options(delay=3600).enqueue(1)
        assert (await http.post("/")).status_code == 503
        assert (await earlier.status()).state is State.SCHEDULED


async def test_a_connection_that_has_died_meanwhile_is_replaced(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = an_application()
    mail = a_task(fleet)
    async with app.router.lifespan_context(app):
        await app.state.tasks.enqueue(mail, "first")
        broken = [ConnectionResetError("gone"), None]
        publish = Channel.basic_publish

        def once(self: Channel, *args: Any, **kwargs: Any) -> Any:
            if broken and (error := broken.pop(0)):
                raise error
            return publish(self, *args, **kwargs)

        monkeypatch.setattr(Channel, "basic_publish", once)
        await app.state.tasks.enqueue(mail, "second")
    assert [args for _, args, _ in sent(fleet)] == [["first"], ["second"]]


async def test_an_error_of_the_users_own_code_is_raised_and_what_was_stored_is_cancelled(
    app: FastAPI, said: list[str]
) -> None:
    fleet = an_application()

    @fleet.task(name="own", shared=False)
    def own() -> None: ...

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("in a class of the user's")

    own.apply_async = refuse

    @app.post("/")
    async def handler(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "ours")
        background_tasks.add_task(own)

    async with serving(app) as http:
        assert (await http.post("/")).status_code == 500
        [stored] = await records(app.state.tasks)
        assert (stored.state, stored.reason) == (State.CANCELLED, NOT_SENT)
    assert said == []


async def test_what_cannot_be_sent_after_the_response_is_logged(app: FastAPI, caplog: pytest.LogCaptureFixture) -> None:
    mail = a_task(an_application(f"redis://{an_address_where_nobody_listens()}"))

    async with app.router.lifespan_context(app):
        made = BackgroundTasks()

        @app.post("/")
        async def handler(background_tasks: BackgroundTasks) -> None:
            async def late() -> None:
                background_tasks.add_task(mail, "late")

            background_tasks.add_task(late)

        async with serving(app) as http:
            assert (await http.post("/")).status_code == 200
            await until(lambda: "after the response had started: they are lost" in caplog.text)
        assert made.tasks == []


@pytest.mark.afterwards(real=False)
def test_a_test_of_an_application_without_a_broker_gets_the_503_of_production() -> None:
    app = FastAPI()
    Afterwards(app)
    mail = a_task(an_application(f"amqp://{an_address_where_nobody_listens()}"))

    @app.post("/")
    async def handler(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(mail, "ada")

    with TestClient(app) as client:
        assert client.post("/").status_code == 503
        mail.app.conf.task_always_eager = True
        assert client.post("/").status_code == 200


def test_it_is_an_error_of_the_kind_that_callers_of_networks_expect() -> None:
    error = BrokerUnavailable("mail", "amqp://somewhere//", "gone")
    assert isinstance(error, ConnectionError)
    assert not isinstance(error, OperationalError)
