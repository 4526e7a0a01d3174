"""``CeleryDispatch`` sends to real brokers, to one that hangs, and to none."""

import asyncio
import os
import signal
import socket
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from kombu import Connection, Queue

from afterwards import InvalidOption
from afterwards.celery import CeleryDispatch
from afterwards.core.task import Lease
from afterwards.dispatch.fleet import NotSent
from afterwards.engine import Dispatch
from fleet.conftest import private_broker
from servers.process import ServerProcess

pytestmark = pytest.mark.anyio


def dispatches(number: int, queue: str, priority: int = 0) -> list[Dispatch]:
    return [Dispatch(lease=Lease(str(uuid4()), 1), queue=queue, priority=priority) for _ in range(number)]


def arrived(url: str, queue: str) -> list[Any]:
    """Take the messages of a queue. Returns their arguments and priorities, in the order of the queue."""
    messages = []
    with Connection(url) as connection:
        bound = Queue(queue, routing_key=queue, max_priority=9, no_declare=True)(connection.channel())
        while message := bound.get(no_ack=True):
            messages.append((tuple(message.payload[0]), message.properties.get("priority")))
    return messages


@pytest.fixture
def queue() -> str:
    return f"sent-{uuid4().hex}"


@pytest.fixture
def app(broker: ServerProcess) -> Celery:
    app = Celery("sender", broker=broker.url)
    app.conf.task_queue_max_priority = 9
    return app


async def test_messages_arrive_in_the_order_sent(app: Celery, broker: ServerProcess, queue: str) -> None:
    sent = dispatches(50, queue)
    await CeleryDispatch(app).send(sent)
    assert [arguments for arguments, _ in arrived(broker.url, queue)] == [tuple(one.lease) for one in sent]


async def test_priorities_are_those_of_the_broker(app: Celery, broker: ServerProcess, queue: str) -> None:
    fleet = CeleryDispatch(app)
    sent = {priority: dispatches(1, queue, priority) for priority in (-100, 0, 100)}
    for some in sent.values():
        await fleet.send(some)
    order = [arguments for arguments, _ in arrived(broker.url, queue)]
    assert order == [tuple(sent[priority][0].lease) for priority in (100, 0, -100)]


async def test_an_eager_app_sends_without_a_warning(app: Celery, broker: ServerProcess, queue: str) -> None:
    app.conf.task_always_eager = True
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        await CeleryDispatch(app).send(dispatches(1, queue))
    assert len(arrived(broker.url, queue)) == 1


async def test_several_event_loops_may_send(app: Celery, broker: ServerProcess, queue: str) -> None:
    fleet = CeleryDispatch(app)
    threads = [threading.Thread(target=lambda: asyncio.run(fleet.send(dispatches(5, queue)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    await fleet.send(dispatches(5, queue))
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert len(arrived(broker.url, queue)) == 25


async def test_a_queue_with_other_settings_stops_no_other_queue(
    app: Celery, broker: ServerProcess, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    compares = broker.url.startswith("amqp")  # Redis has no settings of queues
    with Connection(broker.url) as connection:
        Queue(f"{queue}-a", routing_key=f"{queue}-a")(connection.channel()).declare()  # without priorities
    await CeleryDispatch(app).send([*dispatches(2, f"{queue}-a"), *dispatches(2, f"{queue}-b")])
    assert len(arrived(broker.url, f"{queue}-b")) == 2
    assert (f'no task can be sent to the queue "{queue}-a"' in caplog.text) == compares
    assert len(arrived(broker.url, f"{queue}-a")) == (0 if compares else 2)


async def test_a_queue_that_celery_does_not_allow_stops_no_other_queue(
    app: Celery, broker: ServerProcess, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    # Celery 5.5 needs its default queue to be one of them, whatever is sent.
    app.conf.update(
        task_create_missing_queues=False, task_default_queue=queue, task_queues=[Queue(queue, routing_key=queue)]
    )
    await CeleryDispatch(app).send([*dispatches(1, "unknown"), *dispatches(2, queue)])
    assert len(arrived(broker.url, queue)) == 2
    assert 'the queue "unknown": Celery\'s setting task_queues does not have it' in caplog.text


async def test_a_full_queue_stops_no_other_queue(
    app: Celery, broker: ServerProcess, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    refuses = broker.url.startswith("amqp")  # Redis has no full queues
    full = f"{queue}-a"
    limited = {"x-max-length": 1, "x-overflow": "reject-publish"}
    app.conf.task_queues = [Queue(full, routing_key=full, queue_arguments=limited), Queue(queue, routing_key=queue)]
    app.conf.task_default_queue = queue
    fleet = CeleryDispatch(app)
    for _ in range(2):
        await fleet.send([*dispatches(3, full), *dispatches(2, queue)])
    assert len(arrived(broker.url, queue)) == 4
    assert len(arrived(broker.url, full)) == (1 if refuses else 6)
    assert (f'no task can be sent to the queue "{full}": the broker refused' in caplog.text) == refuses


@pytest.mark.parametrize("hangs", [False, True], ids=["refuses", "hangs"])
async def test_the_first_of_several_brokers_that_answers_gets_the_messages(
    broker: ServerProcess, queue: str, hangs: bool
) -> None:
    with ExitStack() as stack:
        others = [stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=100)) for _ in range(2)]
        scheme = broker.url.partition(":")[0]
        urls = [f"{scheme}://127.0.0.1:{other.getsockname()[1]}/" for other in others]
        if not hangs:
            stack.close()
        await CeleryDispatch(Celery("sender", broker=";".join([*urls, broker.url]))).send(dispatches(1, queue))
    assert len(arrived(broker.url, queue)) == 1


@pytest.fixture
def own_broker(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """A broker that the test may kill."""
    with private_broker(request.param) as server:
        yield server


OWN = [
    pytest.param("redis", marks=pytest.mark.xdist_group("fleet-redis")),
    pytest.param("amqp", marks=pytest.mark.xdist_group("fleet-own")),
]


@pytest.mark.parametrize("own_broker", OWN, indirect=True)
async def test_a_restarted_broker_gets_what_is_sent_next(own_broker: ServerProcess, queue: str) -> None:
    app = Celery("sender", broker=own_broker.url)
    app.conf.task_queue_max_priority = 9
    fleet = CeleryDispatch(app)
    await fleet.send(dispatches(2, queue))
    own_broker.restart(signal.SIGKILL)
    await fleet.send(dispatches(3, queue))  # on a connection that has died
    assert len(arrived(own_broker.url, queue)) == 5
    own_broker.kill()
    sent = dispatches(1, queue)
    with pytest.raises(NotSent) as raised:
        await fleet.send(sent)
    assert list(raised.value.unsent) == sent


@pytest.mark.parametrize("scheme", ["amqp", "redis"])
async def test_a_broker_that_hangs_is_given_up(scheme: str, queue: str) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as hanging:
        url = f"{scheme}://user:s3cret@127.0.0.1:{hanging.getsockname()[1]}/"
        with pytest.raises(NotSent) as raised:
            await asyncio.wait_for(CeleryDispatch(Celery("sender", broker=url)).send(dispatches(1, queue)), 60)
    assert "s3cret" not in raised.value.reason and raised.value.reason


@pytest.mark.parametrize("scheme", ["amqp", "redis"])
async def test_a_broker_that_is_away_is_no_error_of_ours(scheme: str, queue: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    fleet = CeleryDispatch(Celery("sender", broker=f"{scheme}://user:s3cret@127.0.0.1:{port}/"))
    for _ in range(2):
        with pytest.raises(NotSent, match="refused") as raised:
            await fleet.send(dispatches(1, queue))
        assert "s3cret" not in raised.value.reason


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
async def test_a_forked_process_sends_on_a_connection_of_its_own(
    app: Celery, broker: ServerProcess, queue: str
) -> None:
    fleet = CeleryDispatch(app)
    await fleet.send(dispatches(1, queue))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # there are threads, as in a server that forks late
        child = os.fork()
    if child == 0:
        threading.Thread(target=lambda: (asyncio.run(fleet.send(dispatches(1, queue))), os._exit(0))).start()
        threading.Event().wait(60)
        os._exit(1)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    await fleet.send(dispatches(1, queue))
    assert (status, len(arrived(broker.url, queue))) == (0, 3)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"again_after": 0}, "again_after=0: give 0.1 seconds to a day"),
        ({"again_after": timedelta(days=2)}, "give 0.1 seconds to a day"),
        ({"again_after": "soon"}, "give seconds, or a timedelta"),
        ({"ahead": 0}, "ahead=0: give a whole number from 1"),
        ({"ahead": True}, "ahead=True"),
        ({"prefetch": 1}, "there is no such option"),
    ],
    ids=str,
)
def test_options_are_checked(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidOption, match=problem):
        CeleryDispatch(Celery("sender"), **options)


@pytest.mark.parametrize("wrong", ["redis://", None, Celery], ids=str)
def test_only_a_celery_app_is_accepted(wrong: Any) -> None:
    with pytest.raises(InvalidOption, match="give the Celery app"):
        CeleryDispatch(wrong)
