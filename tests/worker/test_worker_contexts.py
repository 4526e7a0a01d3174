"""Each attempt begins in the context of the worker's start, with nothing in it that another attempt has changed."""

import asyncio
import decimal
import re
import threading
from collections import ChainMap, Counter, OrderedDict, UserDict, defaultdict, deque
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
import sentry_sdk
from pydantic import AnyUrl, BaseModel, PrivateAttr

from afterwards import State, task
from afterwards.execution.fresh_context import FreshContexts
from face.serving import finished, until, working

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]

events: list[dict[str, Any]] = []


@pytest.fixture
def sentry() -> Iterator[list[dict[str, Any]]]:
    events.clear()
    sentry_sdk.init(
        dsn="http://key@localhost:1/1",
        before_send=lambda event, hint: events.append(dict(event)),  # type: ignore[func-returns-value]
        default_integrations=True,
        auto_enabling_integrations=False,
    )
    with sentry_sdk.isolation_scope() as scope:
        scope.set_tag("service", "shop")
        yield events
    sentry_sdk.init(auto_enabling_integrations=False)  # those would change FastAPI for all tests that follow


@task
async def tag_on_the_loop(user: str) -> None:
    _tag(user)


@task
def tag_in_a_thread(user: str) -> None:
    _tag(user)


def _tag(user: str) -> None:
    if user:
        sentry_sdk.set_user({"id": user})
        sentry_sdk.set_tag("customer", user)
        sentry_sdk.get_current_scope().set_extra("order", user)
        sentry_sdk.add_breadcrumb(message=user)
    raise ValueError(user)


@pytest.mark.parametrize("function", [tag_on_the_loop, tag_in_a_thread], ids=lambda value: value.name)
async def test_what_a_task_sets_in_sentrys_scope_is_not_in_the_events_of_the_next(
    url: str, sentry: list[dict[str, Any]], function: Any
) -> None:
    async with working(url, concurrency=1):
        await finished(await function.enqueue("ada"))
        await finished(await function.enqueue(""))
        await until(lambda: len(sentry) >= 2)
    first, second = sentry[:2]
    assert (first["user"]["id"], first["tags"]["customer"], first["tags"]["service"]) == ("ada", "ada", "shop")
    assert second["tags"]["service"] == "shop", "as it was when the worker started"
    assert "customer" not in second["tags"] and "id" not in second.get("user", {})
    assert "order" not in second.get("extra", {})
    assert "ada" not in [crumb.get("message") for crumb in second.get("breadcrumbs", {}).get("values", [])]


@dataclass
class Bag:
    items: list[str] = field(default_factory=list)


class Plain:
    def __init__(self) -> None:
        self.items: list[str] = []


@dataclass(frozen=True, slots=True)
class Slotted:
    items: list[str] = field(default_factory=list)
    never_set: str = field(init=False, compare=False)


@dataclass(frozen=True, slots=True)
class Wider(Slotted):  # type: ignore[misc]
    more: int = 1


class Colour(Enum):
    RED = 1


class TenantId(str):
    __slots__ = ()


@dataclass
class Ticket(Bag):
    """A dataclass with immutable values of classes that are no built-in."""

    id: UUID = field(default_factory=uuid4)
    path: Path = Path("a")
    colour: Colour = Colour.RED
    pattern: re.Pattern[str] = re.compile("a")
    tenant: TenantId = field(default_factory=lambda: TenantId("acme"))
    zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))


class Model(BaseModel):
    items: list[str] = []


class Private(BaseModel):
    site: AnyUrl = AnyUrl("https://example.org")
    _items: list[str] = PrivateAttr(default_factory=list)


class Named(NamedTuple):
    n: int
    items: list[str]


class Folder(dict[str, list[str]]):
    """A subclass with attributes."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.items_of_folder: list[str] = []


class Frozen(dict[str, list[str]]):
    def __setitem__(self, *_: Any) -> None:
        raise ValueError


class Pile(list[list[str]]): ...


class Registry(dict[str, Any]):
    """More than data: a dictionary with its lock."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class Owner:
    """More than data: it ends what it owns."""

    ended: ClassVar[list[int]] = []

    def __init__(self) -> None:
        self.descriptor = 7

    def __del__(self) -> None:
        self.ended.append(self.descriptor)


class Pool:
    """More than data, as what is connected to something."""

    def __init__(self) -> None:
        self.items: list[str] = []
        self.lock = threading.Lock()


bag: ContextVar[Any] = ContextVar("bag")

MUTABLE: dict[str, tuple[Any, Any]] = {
    "list": (list, lambda value: value),
    "dictionary": (lambda: {"items": []}, lambda value: value["items"]),
    "tuple": (lambda: (1, []), lambda value: value[1]),
    "dataclass": (Bag, lambda value: value.items),
    "object": (Plain, lambda value: value.items),
    "namespace": (lambda: SimpleNamespace(items=[]), lambda value: value.items),
    "ordered": (lambda: OrderedDict(items=[]), lambda value: value["items"]),
    "counter": (lambda: Counter(items=[]), lambda value: value["items"]),  # type: ignore[arg-type]
    "defaultdict": (lambda: defaultdict(lambda: 0, items=[]), lambda value: value["items"]),  # type: ignore[arg-type]
    "deque": (lambda: deque([[]], maxlen=1), lambda value: value[0]),
    "user dictionary": (lambda: UserDict(items=[]), lambda value: value["items"]),
    "chain": (lambda: ChainMap({}, {"items": []}), lambda value: value["items"]),
    "named tuple": (lambda: Named(1, []), lambda value: value.items),
    "subclass of dict": (lambda: Folder({"items": []}), lambda value: value["items"]),
    "subclass of dict without changes": (lambda: Frozen({"items": []}), lambda value: value["items"]),
    "attribute of a dict": (Folder, lambda value: value.items_of_folder),
    "subclass of list": (lambda: Pile([[]]), lambda value: value[0]),
    "slots": (Slotted, lambda value: value.items),
    "more slots": (Wider, lambda value: value.items),
    "immutable values": (Ticket, lambda value: value.items),
    "model": (Model, lambda value: value.items),
    "private": (Private, lambda value: value._items),
    "model in a dataclass": (lambda: Bag(Model()), lambda value: value.items.items),  # type: ignore[arg-type]
    "factory in a dataclass": (lambda: Bag(defaultdict(lambda: 0, a=[])), lambda value: value.items["a"]),  # type: ignore[arg-type]
}


@task
async def put_on_the_loop(kind: str) -> list[str]:
    return _put(kind)


@task
def put_in_a_thread(kind: str) -> list[str]:
    return _put(kind)


def _put(kind: str) -> list[str]:
    items = MUTABLE[kind][1](bag.get())
    items.append("mine")
    return list(items)


@pytest.mark.parametrize("kind", MUTABLE)
@pytest.mark.parametrize("function", [put_on_the_loop, put_in_a_thread], ids=lambda value: value.name)
async def test_what_a_task_puts_into_a_context_variable_the_next_does_not_find(
    url: str, function: Any, kind: str
) -> None:
    value = MUTABLE[kind][0]()
    MUTABLE[kind][1](value).append("before")
    bag.set(value)
    async with working(url):
        for _ in range(2):
            assert await (await function.enqueue(kind)).result(timeout=10) == ["before", "mine"]
    assert MUTABLE[kind][1](value) == ["before"]


@task
def work_with_few_digits() -> str:
    before = str(decimal.getcontext().prec)
    decimal.getcontext().prec = 5
    return before


async def test_the_precision_of_decimals_is_each_tasks_own(url: str) -> None:
    decimal.getcontext().prec = 28
    async with working(url):
        for _ in range(2):
            assert await (await work_with_few_digits.enqueue()).result(timeout=10) == "28"


def test_what_is_more_than_data_is_shared() -> None:
    pool = Pool()
    circle: list[Any] = [pool]
    circle.append(circle)
    bag.set(circle)
    found = FreshContexts().fresh()[bag]
    assert found is not circle and found[0] is pool and found[1] is found


@pytest.mark.parametrize("kind", [Registry, asyncio.Event, asyncio.Queue, threading.Condition])
def test_so_is_what_has_a_lock_or_is_one(kind: Any) -> None:
    value = kind()
    bag.set([value])
    assert FreshContexts().fresh()[bag][0] is value


def test_so_is_what_ends_something_when_it_is_deleted() -> None:
    value = Owner()
    bag.set([value])
    assert FreshContexts().fresh()[bag][0] is value
    assert Owner.ended == []


def test_a_copy_is_of_the_same_kind_and_equal() -> None:
    folder = Folder({"a": ["b"]})
    values = [
        folder,
        deque([1, 2], maxlen=2),
        defaultdict(list, a=[1]),
        Named(1, [2]),
        Wider(["a"], more=3),
        Ticket(["b"]),
    ]
    bag.set(values)
    found = FreshContexts().fresh()[bag]
    assert found == values and [type(one) for one in found] == [type(one) for one in values]
    assert found[1].maxlen == 2 and found[2].default_factory is list


def test_what_cannot_change_is_not_copied() -> None:
    bag.set((Named(1, ()), Colour.RED, Path("a"), TenantId("acme")))  # type: ignore[arg-type]
    assert FreshContexts().fresh()[bag] is bag.get()


@task
async def go_on() -> None: ...


class Hostile:
    def __copy__(self) -> Any:
        raise SystemExit("no copy")


async def test_a_value_that_cannot_be_copied_is_no_obstacle(url: str) -> None:
    bag.set(Hostile())
    async with working(url):
        assert (await finished(await go_on.enqueue())).state is State.SUCCEEDED
