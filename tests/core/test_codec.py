"""Arguments and results as JSON: what survives, what is refused, and with which words."""

import dataclasses
import enum
import ipaddress
import json
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from functools import partial, wraps
from inspect import iscoroutinefunction
from math import inf, isnan, nan
from pathlib import Path
from re import Pattern
from re import compile as pattern
from types import SimpleNamespace
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeVar, Unpack
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
import typing_extensions
from fastapi import Request
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    AliasPath,
    AnyUrl,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    PlainSerializer,
    PrivateAttr,
    RootModel,
    Secret,
    SecretBytes,
    SecretStr,
    computed_field,
    field_serializer,
    field_validator,
)
from pydantic_core import core_schema

from afterwards.core.errors import (
    AfterwardsError,
    InvalidTaskFunction,
    TooLarge,
    Unreadable,
    UnstorableArgument,
    UnstorableResult,
    UnusableAnnotation,
)
from afterwards.core.serialization.arguments import ARGUMENTS_LIMIT, RESULT_LIMIT, Codec, ResultCodec
from afterwards.core.serialization.compare import same


class Color(enum.Enum):
    RED = "red"
    BLUE = 2


class Size(enum.StrEnum):
    SMALL = "small"


class Point(NamedTuple):
    x: int
    seen: date


class Options(typing_extensions.TypedDict, total=False):
    count: int
    raw: bytes


@dataclasses.dataclass
class Visit:
    day: date
    weight: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Slotted:
    weight: float


@dataclasses.dataclass(eq=False)
class WithoutEquality:
    weight: float


class Address(BaseModel):
    street: str
    since: date | None = None


class Person(BaseModel):
    name: str
    born: datetime
    addresses: list[Address] = []
    score: float | None = None
    picture: bytes = b""


class Extensible(BaseModel, extra="allow"):
    _lock: object = PrivateAttr(default_factory=object)


class Customer(Person):
    number: int = 0


class Login(BaseModel):
    user: str
    password: SecretStr


class Tree(BaseModel):
    secret: SecretStr = SecretStr("")
    children: "list[Tree]" = []


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    name: str = ""


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    name: str = ""


class Numbers(RootModel[list[int]]):
    pass


class Meters:
    """A type of the user's own, without equality."""

    def __init__(self, value: int) -> None:
        self.value = value

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        write = core_schema.plain_serializer_function_ser_schema(lambda meters: meters.value)
        return core_schema.no_info_after_validator_function(cls, core_schema.int_schema(), serialization=write)


class Vector(Meters):
    """Compares as arrays do: element by element, which is neither true nor false."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("the truth value of an array is ambiguous")


class User:
    """Stands for what an ORM loads, or any object of the application."""

    def __init__(self, id: int = 1) -> None:
        self.id = id


BERLIN = ZoneInfo("Europe/Berlin")


def taking(annotation: Any) -> Codec:
    def send(value): ...

    send.__annotations__["value"] = annotation
    return Codec(send, name="send")


def untyped() -> Codec:
    return Codec(lambda value: None, name="send")


def returning(annotation: Any) -> ResultCodec:
    def count(): ...

    count.__annotations__["return"] = annotation
    return ResultCodec(count, name="count")


def there_and_back(annotation: Any, value: Any) -> Any:
    codec = taking(annotation)
    return codec.load(codec.dump((value,), {}))["value"]


def refusal(codec: Codec, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(UnstorableArgument) as caught:
        codec.dump(args, kwargs)
    return str(caught.value)


def bound_error(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[str, str]:
    """What a direct call says, and what the codec says."""
    with pytest.raises(TypeError) as direct:
        function(*args, **kwargs)
    with pytest.raises(TypeError) as stored:
        Codec(function, name="task").dump(args, kwargs)
    assert not isinstance(stored.value, AfterwardsError)
    return str(direct.value), str(stored.value)


def called(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What the function returns when it is called with arguments that were stored."""
    codec = Codec(function, name="task")
    positional, named = codec.spread(codec.load(codec.dump(args, kwargs)))
    return function(*positional, **named)


ITEMS: dict[str, Any] = {"item": lambda self: 1, "tolist": lambda self: 1, "__module__": __name__}
LIKE_NUMPYS: dict[str, Any] = {  # which nothing else here needs
    "float64": type("float64", (), ITEMS),
    "bool": type("bool", (), ITEMS),
    "ndarray": type("ndarray", (), ITEMS | {"__setitem__": lambda self, place, value: None}),
}

# Builds codecs, which takes longer on a busy machine.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
NUMBER = taking(int)
UNTYPED = untyped()


class TestWhatSurvives:
    @pytest.mark.parametrize(
        ("annotation", "value"),
        [
            (int, 3),
            pytest.param(int, -(10**400), id="big"),
            (bool, True),
            (str, "größer \0 \U0001f600"),
            (float, 0.1),
            (float, 3),
            (float, inf),
            (float, -inf),
            (float | None, None),
            (datetime, datetime(2026, 3, 1, 12, 30, 0, 5)),
            (datetime, datetime(2026, 3, 1, 12, 30, tzinfo=UTC)),
            (datetime, datetime(2026, 3, 1, 12, 30, tzinfo=timezone(timedelta(hours=-3, minutes=-30)))),
            (datetime, datetime(2026, 3, 1, 12, 30, tzinfo=BERLIN)),
            (date, date(1, 1, 1)),
            (date | datetime, datetime(2026, 3, 1)),
            (time, time(1, 2, 3, 4, tzinfo=UTC)),
            (timedelta, timedelta.max),
            (timedelta, timedelta(days=-1, microseconds=3)),
            (UUID, UUID(int=5)),
            (Decimal, Decimal("1.10")),
            (Fraction, Fraction(1, 3)),
            (complex, 1 + 2j),
            (Color, Color.BLUE),
            (Size, Size.SMALL),
            (Literal["a", 3], 3),
            (bytes, b"\xff\x00"),
            (Path, Path("/srv/a b")),
            (AnyUrl, AnyUrl("https://example.com/a?b=c")),
            (ipaddress.IPv6Address, ipaddress.IPv6Address("::1")),
            (Pattern[str], pattern("a+")),
            (list[date], [date(2026, 1, 1)]),
            (set[int], {1, 2}),
            (frozenset[UUID], frozenset({UUID(int=1)})),
            (tuple[int, date], (1, date(2026, 1, 1))),
            (tuple[int, ...], (1, 2, 3)),
            (deque[int], deque([1, 2])),
            (Counter[str], Counter("aab")),
            (defaultdict[str, list[int]], defaultdict(list, a=[1])),
            (Sequence[int], [1, 2]),
            (Iterable[int], [1, 2]),
            (dict[UUID, int], {UUID(int=1): 1}),
            (dict[bytes, date], {b"\xff": date(2026, 1, 1)}),
            (dict[float, int], {inf: 1}),
            (int | str, "3"),
            (Point, Point(1, date(2026, 1, 1))),
            (Options, {"raw": b"\xff"}),
            (Visit, Visit(date(2026, 1, 1))),
            (Slotted, Slotted(weight=1.5)),
            (Address, Address(street="a", since=date(2026, 1, 1))),
            (Person, Person(name="a", born=datetime(2000, 1, 1), addresses=[Address(street="b")])),
            (Numbers, Numbers([1, 2])),
            (Cat | Dog, Dog()),
            (Annotated[Cat | Dog, Field(discriminator="kind")], Dog(name="Rex")),
            (Json[list[int]], [1]),
            (TypeVar("T"), [1]),
            (Any, {"a": [1, 1.5, "b", None, True, {"c": []}]}),
            (list, [1, "a"]),
            (dict, {"a": 1}),
            (object, "a"),
        ],
    )
    def test_a_value_comes_back_equal_and_of_its_type(self, annotation: Any, value: Any) -> None:
        loaded = there_and_back(annotation, value)
        assert loaded == value
        assert type(loaded) is type(value) or annotation is float

    @pytest.mark.parametrize(
        ("annotation", "value"),
        [
            (float, nan),
            (list[float | None], [nan, None]),
            (tuple[float, ...], (1.0, nan)),
            (set[float], {nan, 1.0}),
            (dict[str, float], {"a": nan}),
            (Visit, Visit(date(2026, 1, 1), nan)),
            (Slotted, Slotted(weight=nan)),
            (WithoutEquality, WithoutEquality(nan)),
            (Person, Person(name="a", born=datetime(2000, 1, 1), score=nan)),
        ],
    )
    def test_nan_survives_wherever_it_is(self, annotation: Any, value: Any) -> None:
        assert same(value, there_and_back(annotation, value))

    @pytest.mark.parametrize("fold", [0, 1])
    @pytest.mark.parametrize("moment", [datetime(2026, 10, 25, 2, 30), datetime(2026, 3, 29, 2, 30)])
    def test_an_hour_that_the_clock_repeats_or_skips_survives(self, moment: datetime, fold: int) -> None:
        local = moment.replace(tzinfo=BERLIN, fold=fold)
        loaded = there_and_back(datetime, local)
        assert (loaded.replace(tzinfo=None), loaded.utcoffset()) == (moment, local.utcoffset())

    @pytest.mark.parametrize(
        ("annotation", "value"),
        [
            (SecretStr, SecretStr("hunter2")),
            (SecretStr | None, None),
            (SecretStr | int, 3),
            (SecretBytes, SecretBytes(b"\xff")),
            (Secret[date], Secret[date](date(2026, 1, 1))),
            (Secret[bytes], Secret[bytes](b"\xff")),
            (list[SecretStr], [SecretStr("a")]),
            (Sequence[SecretStr], [SecretStr("a")]),
            (dict[str, SecretStr], {"a": SecretStr("b")}),
            (Login, Login(user="a", password=SecretStr("b"))),
            (list[Login], [Login(user="a", password=SecretStr("b"))]),
            (Tree, Tree(children=[Tree(secret=SecretStr("leaf"))])),
        ],
    )
    def test_a_secret_survives_and_is_not_stored_as_asterisks(self, annotation: Any, value: Any) -> None:
        assert there_and_back(annotation, value) == value

    def test_models_go_on_masking_their_secrets_elsewhere(self) -> None:
        login = Login(user="a", password=SecretStr("hunter2"))
        taking(Login).dump((login,), {})
        assert "hunter2" not in login.model_dump_json()

    def test_a_model_survives_whatever_its_own_json_is_like(self) -> None:
        class Odd(BaseModel):
            model_config = ConfigDict(extra="forbid", ser_json_bytes="hex", ser_json_temporal="seconds")
            street: str = Field(alias="roadName")
            house: int = Field(validation_alias=AliasPath("houses", 0))
            hidden: str = Field(default="", exclude=True)
            content: bytes
            seen: datetime

            @computed_field
            def label(self) -> str:
                return self.street

        odd = Odd(roadName="a", houses=[3], hidden="b", content=b"\xff", seen=datetime(2026, 1, 1))
        assert there_and_back(Odd, odd) == odd

    def test_extra_fields_survive_and_private_attributes_do_not_stand_in_the_way(self) -> None:
        loaded = there_and_back(Extensible, Extensible(a=1))
        assert loaded.model_extra == {"a": 1}

    def test_what_was_unset_in_a_model_stays_unset(self) -> None:
        loaded = there_and_back(Address, Address(street="a"))
        assert loaded.model_dump(exclude_unset=True) == {"street": "a"}

    def test_a_default_that_differs_each_time_survives(self) -> None:
        class Order(BaseModel):
            id: UUID = Field(default_factory=uuid4)

        order = Order()
        assert there_and_back(Order, order) == order

    def test_a_type_without_equality_survives_if_its_attributes_do(self) -> None:
        assert there_and_back(Meters, Meters(3)).value == 3
        assert there_and_back(list[Meters], [Meters(3)])[0].value == 3

    def test_a_value_that_equals_one_of_the_type_becomes_one(self) -> None:
        assert type(there_and_back(int, 3.0)) is int
        assert type(there_and_back(Size, "small")) is Size


class TestProperties:
    plain = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=10,
    )
    offsets = st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(
        lambda span: timezone(timedelta(minutes=span // timedelta(minutes=1)))
    )
    values: ClassVar[dict[Any, st.SearchStrategy[Any]]] = {
        int: st.integers(),
        float: st.floats(),
        bool: st.booleans(),
        str: st.text(),
        bytes: st.binary(),
        date: st.dates(),
        datetime: st.datetimes(timezones=st.none() | offsets),
        time: st.times(timezones=st.none() | offsets),
        timedelta: st.timedeltas(),
        UUID: st.uuids(),
        Decimal: st.decimals(allow_nan=False, allow_infinity=False),
        Color: st.sampled_from(Color),
        SecretStr: st.text().map(SecretStr),
        Visit: st.builds(Visit, st.dates(), st.floats()),
        Point: st.builds(Point, st.integers(), st.dates()),
        Person: st.builds(
            Person,
            name=st.text(),
            born=st.datetimes(timezones=st.none() | offsets),
            addresses=st.lists(st.builds(Address, street=st.text(), since=st.none() | st.dates()), max_size=2),
            score=st.none() | st.floats(),
            picture=st.binary(),
        ),
    }
    hashable: ClassVar = [int, bool, str, bytes, date, UUID, Decimal, Color]

    def annotated_values(self) -> st.SearchStrategy[tuple[Any, Any]]:
        """An annotation, nested at random, with a value of it."""
        scalars = st.sampled_from(list(self.values)).flatmap(lambda kind: st.tuples(st.just(kind), self.values[kind]))
        return st.recursive(scalars, self.inside_something, max_leaves=3)

    def inside_something(self, inner: st.SearchStrategy[tuple[Any, Any]]) -> st.SearchStrategy[tuple[Any, Any]]:
        keys = st.sampled_from([int, str, UUID, date])
        return st.one_of(
            inner.map(lambda pair: (list[pair[0]], [pair[1], pair[1]])),
            inner.map(lambda pair: (pair[0] | None, pair[1])),
            inner.map(lambda pair: (pair[0] | None, None)),
            inner.map(lambda pair: (tuple[pair[0], ...], (pair[1],))),
            st.tuples(keys.flatmap(lambda key: st.tuples(st.just(key), self.values[key])), inner).map(
                lambda pairs: (dict[pairs[0][0], pairs[1][0]], {pairs[0][1]: pairs[1][1]})
            ),
        )

    @unhurried
    @given(st.data())
    def test_what_is_stored_comes_back_the_same(self, data: st.DataObject) -> None:
        annotation, value = data.draw(self.annotated_values())
        assert same(value, there_and_back(annotation, value))

    @unhurried
    @given(st.data())
    def test_sets_come_back_the_same(self, data: st.DataObject) -> None:
        kind = data.draw(st.sampled_from(self.hashable))
        value = data.draw(st.sets(self.values[kind], max_size=3))
        assert there_and_back(set[kind], value) == value
        assert there_and_back(frozenset[kind], frozenset(value)) == value

    @unhurried
    @given(plain)
    def test_plain_json_needs_no_annotation_and_is_json_for_everybody(self, value: Any) -> None:
        written = UNTYPED.dump((value,), {})
        assert UNTYPED.load(written)["value"] == value
        assert json.loads(written) == {"value": value}

    @unhurried
    @given(st.text() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
    @example("\ud800")
    @example("[" * 100_000)
    @example('{"value":' + "1" * 5_000 + "}")
    def test_a_damaged_row_is_unreadable_and_no_crash(self, text: str) -> None:
        with pytest.raises(Unreadable):
            NUMBER.load(text)


def every_kind(a: int, /, b: int, c: int = 3, *rest: int, d: int, e: int = 5, **more: int) -> Any:
    return a, b, c, rest, d, e, more


def none_needed(a: int = 1, b: int = 2, /, *rest: int) -> Any:
    return a, b, rest


class Greeter:
    def greet(self, name: str) -> str:
        return name

    def __call__(self, name: "str") -> str:
        return name


class TestTheCall:
    @pytest.mark.parametrize(
        ("args", "kwargs"),
        [
            ((1, 2), {"d": 4}),
            ((1,), {"b": 2, "d": 4}),
            ((1, 2, 9), {"d": 4, "e": 9}),
            ((1, 2, 9, 8, 7), {"d": 4}),
            ((1, 2), {"d": 4, "x": 1, "y": 2}),
            ((1, 2), {"d": 4, "a": 1, "more": 2, "rest": 3}),
            ((1,), {"b": 2, "c": 9, "d": 4, "more": 1}),
        ],
    )
    def test_a_stored_call_is_the_direct_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        assert called(every_kind, *args, **kwargs) == every_kind(*args, **kwargs)

    @pytest.mark.parametrize("args", [(), (5,), (5, 6), (5, 6, 7, 8)])
    def test_positional_arguments_may_all_be_left_out(self, args: tuple[int, ...]) -> None:
        assert called(none_needed, *args) == none_needed(*args)

    def test_a_function_without_parameters_stores_an_empty_object(self) -> None:
        assert Codec(lambda: None, name="task").dump((), {}) == "{}"

    @pytest.mark.parametrize(
        ("args", "kwargs"),
        [
            ((), {}),
            ((1, 2), {}),
            ((1,), {"d": 4}),
            ((1, 2), {"b": 2, "d": 4}),
            ((), {"a": 1, "b": 2, "d": 4}),
        ],
    )
    def test_a_wrong_call_fails_as_the_direct_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        direct, stored = bound_error(every_kind, *args, **kwargs)
        assert stored == direct
        assert stored.startswith("every_kind() ")

    def test_too_many_and_unknown_arguments_fail_as_in_a_direct_call(self) -> None:
        def send(email: str, subject: str = "") -> None: ...

        for args, kwargs in [(("a", "b", "c"), {}), (("a",), {"sbject": "b"}), (("a",), {"email": "b"}), ((), {})]:
            direct, stored = bound_error(send, *args, **kwargs)
            assert stored == direct

    def test_callable_objects_and_partials_fail_as_in_a_direct_call(self) -> None:
        def greet(greeting: str, name: str) -> None: ...

        for function in (Greeter(), partial(greet, name="Ann")):
            direct, stored = bound_error(function)
            assert stored == direct

    def test_only_what_was_given_is_stored(self) -> None:
        def send(email: str, subject: str = "hello", copies: int = 1) -> None: ...

        assert Codec(send, name="send").dump(("a",), {"copies": 1}) == '{"email":"a","copies":1}'

    def test_a_new_default_holds_for_tasks_stored_before(self) -> None:
        def before(email: str) -> str: ...

        def after(email: str, subject: str = "new") -> str:
            return email + subject

        stored = Codec(before, name="send").dump(("a",), {})
        args, kwargs = Codec(after, name="send").spread(Codec(after, name="send").load(stored))
        assert after(*args, **kwargs) == "anew"

    def test_a_default_that_pydantic_knows_does_not_count_as_given(self) -> None:
        def send(copies: Annotated[int, Field(default=4)] = 5) -> int:
            return copies

        assert called(send) == 5

    def test_a_default_of_none_allows_none(self) -> None:
        def send(email: str = None) -> str | None:  # noqa: RUF013
            return email

        assert called(send, None) is None

    def test_recursive_types_do_not_change_what_is_an_argument(self) -> None:
        def plant(tree: Tree, other: Tree) -> Tree:
            return tree

        codec = Codec(plant, name="plant")
        assert called(plant, Tree(children=[Tree()]), Tree()) == Tree(children=[Tree()])
        with pytest.raises(Unreadable, match="height: Extra inputs are not permitted"):
            codec.load('{"tree": {}, "other": {}, "height": 3}')

    @pytest.mark.parametrize("unpack", [Unpack, typing_extensions.Unpack])
    def test_named_arguments_may_be_typed_one_by_one(self, unpack: Any) -> None:
        def send(**options): ...

        send.__annotations__["options"] = unpack[Options]
        codec = Codec(send, name="send")
        assert codec.load(codec.dump((), {"raw": b"\xff"})) == {"options": {"raw": b"\xff"}}

    def test_bound_methods_callable_objects_partials_and_wrappers_have_a_signature(self) -> None:
        def greet(greeting: "str", name: "str") -> str:
            return greeting + name

        @wraps(greet)
        def wrapper(*args: Any, **kwargs: Any) -> str:
            return greet(*args, **kwargs)

        assert called(Greeter().greet, "Ann") == "Ann"
        assert called(Greeter(), "Ann") == "Ann"
        assert called(partial(greet, "Hi "), "Ann") == "Hi Ann"
        assert called(wrapper, "Hi ", "Ann") == "Hi Ann"


class TestInjectedParameters:
    def test_injected_parameters_are_no_arguments(self) -> None:
        def send(session: User, email: str, *, log: "Unknown") -> Any:  # type: ignore[name-defined]  # noqa: F821
            return session, email, log

        codec = Codec(send, name="send", injected={"session", "log"})
        stored = codec.dump(("a",), {})
        assert stored == '{"email":"a"}'
        args, kwargs = codec.spread(codec.load(stored) | {"session": "S", "log": "L"})
        assert send(*args, **kwargs) == ("S", "a", "L")

    def test_an_injected_parameter_cannot_be_given(self) -> None:
        def send(email: str, session: User | None = None) -> None: ...

        with pytest.raises(TypeError, match=r"send\(\) got an unexpected keyword argument 'session'"):
            Codec(send, name="send", injected={"session"}).dump(("a",), {"session": None})

    def test_injected_parameters_keep_their_place_before_positional_ones(self) -> None:
        def send(first: int, session: Any = "own", /, *rest: int) -> Any:
            return first, session, rest

        codec = Codec(send, name="send", injected=["session"])
        values = codec.load(codec.dump((1, 2, 3), {}))
        for injected, expected in [({"session": "S"}, "S"), ({}, "own")]:
            args, kwargs = codec.spread(values | injected)
            assert send(*args, **kwargs) == (1, expected, (2, 3))


class TestWithoutAnnotation:
    @pytest.mark.parametrize(
        "value",
        [
            datetime(2026, 1, 1),
            date(2026, 1, 1),
            {1, 2},
            b"a",
            (1, 2),
            Address(street="a"),
            Visit(date(2026, 1, 1)),
            uuid4(),
            Decimal(1),
            Size.SMALL,
            OrderedDict(a=1),
            nan,
            inf,
            {1: 2},
        ],
    )
    @pytest.mark.parametrize("wrap", [lambda value: value, lambda value: {"a": [value]}], ids=["alone", "nested"])
    @pytest.mark.parametrize("codec", [untyped(), taking(Any), taking(object)], ids=["none", "Any", "object"])
    def test_what_json_would_change_must_be_annotated(self, codec: Codec, wrap: Any, value: Any) -> None:
        message = refusal(codec, wrap(value))
        assert message.startswith('task "send", parameter "value": found ')
        assert f"JSON alone does not give {type(value).__name__} back as it is; annotate it" in message

    @pytest.mark.parametrize("annotation", [list[Any], dict[str, Any], list, dict, tuple[Any], Sequence[Any]])
    def test_containers_of_anything_do_not_change_what_is_in_them(self, annotation: Any) -> None:
        value = {"a": date(2026, 1, 1)} if annotation in (dict, dict[str, Any]) else [date(2026, 1, 1)]
        assert "date" in refusal(taking(annotation), tuple(value) if annotation == tuple[Any] else value)

    @pytest.mark.parametrize("annotation", [dict, dict[str, int]])
    def test_keys_that_json_would_change_are_refused(self, annotation: Any) -> None:
        assert (
            "found dict: it would not come back equal: the key 1 would come back as str; annotate the keys' type"
            in refusal(taking(annotation), {"a": 2, 1: 2})
        )

    @pytest.mark.parametrize(
        ("value", "told"),
        [
            (nan, "annotate it (nan is not a number in JSON)"),
            (-inf, "annotate it (-inf is not a number in JSON)"),
            ({1: 2}, "annotate it (the key 1 is not text, and JSON allows only text as keys)"),
            ({"a": 1, None: 2}, "annotate it (the key None is not text, and JSON allows only text as keys)"),
            ({("secret", 1): 2}, "annotate it (a key of type tuple is not text, and JSON allows only text as keys)"),
        ],
    )
    @pytest.mark.parametrize("wrap", [lambda value: value, lambda value: [{"a": value}]], ids=["alone", "nested"])
    def test_the_value_or_key_that_json_would_change_is_named(self, value: Any, told: str, wrap: Any) -> None:
        assert refusal(untyped(), wrap(value)).endswith(told)

    def test_fields_without_a_type_do_not_change_what_is_in_them(self) -> None:
        class Event(BaseModel):
            data: dict[str, Any] = {}

        assert there_and_back(Event, Event(data={"a": [1]})) == Event(data={"a": [1]})
        assert "does not give date back" in refusal(taking(Event), Event(data={"a": date(2026, 1, 1)}))

    def test_data_that_contains_itself_is_refused(self) -> None:
        loop: list[Any] = []
        loop.append(loop)
        for annotation in (Any, list, list[list[Any]]):
            assert "it contains itself or is nested too deeply" in refusal(taking(annotation), loop)
        tree = Tree()
        tree.children.append(tree)
        assert "found Tree: Circular reference detected" in refusal(taking(Tree), tree)


class TestWhatIsRefused:
    @pytest.mark.parametrize("annotation", [None, Any, list[int], int, Iterable[int], Person, list])
    def test_a_generator_is_refused_and_not_consumed(self, annotation: Any) -> None:
        numbers = (number for number in range(3))
        codec = UNTYPED if annotation is None else taking(annotation)
        assert "found generator: it can be read only once, pass a list of what it gives" in refusal(codec, numbers)
        assert list(numbers) == [0, 1, 2]

    def test_a_generator_inside_of_anything_is_not_consumed(self) -> None:
        numbers = (number for number in range(3))
        assert "it can be read only once" in refusal(taking(dict[str, Any]), {"a": [numbers]})
        assert list(numbers) == [0, 1, 2]

    def test_generators_among_variable_arguments_are_not_consumed(self) -> None:
        def add(*numbers: int, **named: int) -> None: ...

        numbers = (number for number in range(3))
        codec = Codec(add, name="add")
        assert 'parameter "numbers": found generator' in refusal(codec, 1, numbers)
        assert 'parameter "named": found generator' in refusal(codec, 1, a=numbers)
        assert list(numbers) == [0, 1, 2]

    @pytest.mark.parametrize("annotation", [None, str, Person, Any])
    def test_an_open_file_is_refused_and_not_read(self, annotation: Any, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_text("a\nb")
        codec = UNTYPED if annotation is None else taking(annotation)
        with path.open() as file:
            assert "pass its path, or its content as bytes" in refusal(codec, file)
            assert file.read() == "a\nb"

    @pytest.mark.parametrize("codec", [untyped(), taking(int), taking(Person), taking(Callable[..., Any] | type)])
    @pytest.mark.parametrize("code", [lambda: None, len, Greeter().greet, Greeter, Visit, Cat, partial(len, "a")])
    def test_code_is_refused(self, codec: Codec, code: Any) -> None:
        assert "code cannot be stored, pass values" in refusal(codec, code)

    @pytest.mark.parametrize("codec", [untyped(), taking(int), taking(Person), taking(list[Person] | Address)])
    def test_an_object_of_the_application_is_refused(self, codec: Codec) -> None:
        message = refusal(codec, User())
        assert message.startswith('task "send", parameter "value": found User: ')
        assert "pass its id and load it in the task" in message

    @pytest.mark.parametrize("annotation", [Any, int, Person, dict[str, Any], list[Any]])
    @pytest.mark.parametrize("wrap", [lambda value: value, lambda value: {"a": value}, lambda value: [value]])
    def test_a_hint_is_given_once(self, annotation: Any, wrap: Any) -> None:
        message = refusal(taking(annotation), wrap(User()))
        assert message.count("pass its id and load it in the task") <= 1
        assert message.count("; ") <= 1

    @pytest.mark.parametrize(
        ("kind", "told"), [("float64", "pass its `.item()`, Python's own"), ("ndarray", "pass its `.tolist()`, a list")]
    )
    @pytest.mark.parametrize("annotation", [Any, int, list[int]])
    def test_numbers_of_numpy_and_its_like_are_to_be_converted(self, kind: str, told: str, annotation: Any) -> None:
        value = LIKE_NUMPYS[kind]()
        assert told in refusal(taking(annotation), value)
        assert "pass its id" not in refusal(taking(annotation), value)
        assert told in refusal(taking(dict[str, Any]), {"a": [value]})
        with pytest.raises(UnusableAnnotation, match=told.replace("()", r"\(\)")):
            taking(LIKE_NUMPYS[kind])

    def test_a_type_that_is_called_as_one_of_pythons_is_named_with_its_module(self) -> None:
        assert f"does not give {__name__}.bool back" in refusal(untyped(), LIKE_NUMPYS["bool"]())

    def test_any_object_is_refused_where_a_model_has_only_defaults(self) -> None:
        assert "found User: Input should be a valid dictionary or instance of Cat; pass its id" in refusal(
            taking(Cat), User()
        )

    @pytest.mark.parametrize("attributes", [{"_sa_class_manager": 1}, {"_meta": 1, "pk": 1}])
    def test_a_database_object_is_to_be_passed_by_id(self, attributes: dict[str, Any]) -> None:
        row = type("Row", (), attributes)()
        assert "found Row: pass its id and load it in the task" in refusal(untyped(), row)
        assert "found Row: pass its id and load it in the task" in refusal(taking(Person), row)

    def test_a_request_is_refused(self) -> None:
        request = Request({"type": "http", "headers": []})
        assert "found Request: a request is over when the task runs" in refusal(untyped(), request)

    @pytest.mark.parametrize("method", ["execute", "cursor"])
    def test_a_connection_is_refused(self, method: str) -> None:
        connection = type("Connection", (), {method: None})()
        assert "let the task open its own, as a dependency" in refusal(untyped(), connection)

    def test_what_is_to_be_awaited_is_refused(self) -> None:
        async def fetch() -> int: ...

        async def pages() -> AsyncIterator[int]:
            yield 1

        assert iscoroutinefunction(fetch)
        coroutine = fetch()
        assert "await it first" in refusal(untyped(), coroutine)
        coroutine.close()
        assert "it can be read only once" in refusal(untyped(), pages())

    def test_the_advice_is_found_inside_of_data_too(self) -> None:
        assert "found builtin_function_or_method: code" in refusal(taking(dict[str, Any]), {"a": [1, {"b": len}]})

    @pytest.mark.parametrize(
        ("annotation", "value", "fault"),
        [
            (int, "x", "found str: Input should be a valid integer"),
            (int, "3", "found str: Input should be a valid integer"),
            (int, None, "found NoneType: Input should be a valid integer"),
            (str, 3, "found int: Input should be a valid string"),
            (UUID, str(UUID(int=1)), "found str: Input should be an instance of UUID"),
            (Literal["a"], "b", "found str: Input should be 'a'"),
            (list[int], ["x"], "found list: 0: Input should be a valid integer"),
            (list[int], (1, 2), "found tuple: Input should be a valid list"),
            (Sequence[int], (1, 2), "found tuple: it would come back as list"),
            (dict[tuple[int, int], int], {(1, 2): 3}, "found dict: 1,2.[key]: Input should be a valid array"),
            (Person, {"name": "a", "born": datetime(2026, 1, 1)}, "found dict: it would come back as Person"),
            (Person, Customer(name="a", born=datetime(2026, 1, 1)), "found Customer: it would come back as Person"),
            (list[Person], [Customer(name="a", born=datetime(2026, 1, 1))], "found list: Customer in it would come"),
            (Cat, Cat.model_construct(name=3), "found Cat: name: Input should be a valid string"),
            (Cat | Dog, Dog.model_construct(kind="cat"), "found Dog: "),
            (Address, Address.model_construct(), "found Address: street: Field required"),
            (Visit, object.__new__(Visit), "found Visit: 'Visit' object has no attribute 'day'"),
            (Annotated[int, Field(gt=3)], 1, "found int: Input should be greater than 3"),
            (Annotated[str, AfterValidator(lambda text: text + "!")], "a", "found str: it would not come back equal"),
            (
                str | datetime,
                datetime(2026, 1, 1),
                "found datetime: it would come back as str; pass that, or",
            ),
            (datetime | str, "2026-01-01T00:00:00", "found str: it would come back as datetime; pass that, or"),
            (date, datetime(2026, 1, 1, 5), "found datetime: "),
            (SecretStr | str, "hunter2", "found str: it would come back as SecretStr"),
            (Pattern[str], pattern("a", 2), "found Pattern: it would not come back equal"),
            (Options, {"cuont": 3}, "found dict: it would not come back equal"),
            (set[float], {1.5, "a"}, "found set: "),
            (Vector, Vector(3), "found Vector: it would not come back equal"),
            (str, "\ud800", "found str: 'utf-8' codec can't encode character"),
            pytest.param(int, 10**5000, "found int: Invalid JSON: number out of range", id="too big"),
            (Decimal, Decimal("NaN"), "found Decimal: Input should be a finite number"),
        ],
    )
    def test_what_would_not_come_back_is_refused(self, annotation: Any, value: Any, fault: str) -> None:
        assert f'task "send", parameter "value": {fault}' in refusal(taking(annotation), value)

    def test_json_written_for_people_is_refused(self) -> None:
        class Response(BaseModel):
            day: date

            @field_serializer("day")
            def german(self, day: date) -> str:
                return day.strftime("%d.%m.%Y")

        assert "found Response: day: Input should be a valid date" in refusal(
            taking(Response), Response(day=date(2026, 1, 1))
        )

    def test_a_validator_that_changes_what_it_accepted_is_refused(self) -> None:
        class Account(BaseModel):
            password: str

            @field_validator("password")
            @classmethod
            def hashed(cls, password: str) -> str:
                return f"hash of {password}"

        assert "found Account: it would not come back equal" in refusal(taking(Account), Account(password="a"))

    def test_a_validator_that_changes_its_mind_is_still_a_refusal(self) -> None:
        answers = iter([1, 2, 3, 3, 3])
        codec = taking(Annotated[int, AfterValidator(lambda _: next(answers))])
        assert refusal(codec, 3) == 'task "send", parameter "value": it would not come back equal'

    def test_the_parameter_at_fault_is_named(self) -> None:
        def send(email: str, user: int, *, copies: int = 1) -> None: ...

        with pytest.raises(UnstorableArgument) as caught:
            Codec(send, name="send").dump(("a", User()), {"copies": 2})
        assert (caught.value.task, caught.value.parameter) == ("send", "user")

    def test_no_value_is_shown(self) -> None:
        class Strict(BaseModel):
            password: SecretStr = Field(max_length=3)

        for annotation, value in [(int, "hunter2"), (Strict, Strict.model_construct(password=SecretStr("hunter2")))]:
            with pytest.raises(UnstorableArgument) as caught:
                taking(annotation).dump((value,), {})
            assert "hunter2" not in str(caught.value)
            assert caught.value.__context__ is None
        with pytest.raises(Unreadable) as unreadable:
            taking(int).load('{"value": "hunter2"}')
        assert "hunter2" not in f"{unreadable.value} {unreadable.value.__context__}"

    def test_errors_are_of_ours_and_of_the_built_in_kind(self) -> None:
        assert issubclass(UnstorableArgument, AfterwardsError) and issubclass(UnstorableArgument, TypeError)
        assert issubclass(UnstorableResult, AfterwardsError) and issubclass(UnstorableResult, TypeError)
        assert issubclass(TooLarge, AfterwardsError) and issubclass(TooLarge, ValueError)
        assert issubclass(Unreadable, AfterwardsError) and issubclass(Unreadable, ValueError)
        assert issubclass(UnusableAnnotation, InvalidTaskFunction)


class TestSize:
    def test_arguments_may_be_as_long_as_the_limit(self) -> None:
        text = "a" * (ARGUMENTS_LIMIT - len('{"value":""}'))
        assert len(taking(str).dump((text,), {})) == ARGUMENTS_LIMIT

    def test_one_byte_more_is_refused_with_the_size_and_the_limit(self) -> None:
        text = "ä" + "a" * (ARGUMENTS_LIMIT - len('{"value":""}') - 1)
        with pytest.raises(TooLarge, match="262,145 bytes as JSON, the limit is 262,144: keep the data") as caught:
            taking(str).dump((text,), {})
        assert (caught.value.task, caught.value.size, caught.value.limit) == ("send", 262_145, ARGUMENTS_LIMIT)

    def test_results_have_a_limit_of_their_own(self) -> None:
        codec = returning(str)
        assert len(codec.dump("a" * (RESULT_LIMIT - 2)) or "") == RESULT_LIMIT
        with pytest.raises(TooLarge, match='task "count", result: 65,537 bytes as JSON, the limit is 65,536'):
            codec.dump("a" * (RESULT_LIMIT - 1))


class TestBuilding:
    @pytest.mark.parametrize(
        ("annotation", "message"),
        [
            (User, r"User cannot be stored as JSON: pass its id and load it in the task, or let the task get it as a"),
            (list[User], r"pass its id and load it in the task"),
            (Request, r"Request cannot be stored as JSON: a request is over when the task runs"),
            (Iterator[int], r"Iterator\[int\] cannot be stored as JSON: it can be read only once"),
            (type("Session", (), {"execute": None}), r"let the task open its own, as a dependency"),
            (ClassVar[int], r"ClassVar\[int\] cannot be stored"),
            (Secret, r"Can't get secret type"),
            (Annotated[int, Field(gt="a")], r"'gt' must be coercible to an integer"),
            ("Unknown", r"annotate with a name that the module has when it runs.*name 'Unknown' is not defined"),
            ("list[Unknown]", r"name 'Unknown' is not defined"),
            ("datetime.Unknown", r"has no attribute 'Unknown'"),
            ("1 +", r"must be an expression"),
        ],
    )
    def test_an_annotation_that_cannot_be_stored_names_task_and_parameter(self, annotation: Any, message: str) -> None:
        with pytest.raises(UnusableAnnotation, match=message) as caught:
            taking(annotation)
        assert str(caught.value).startswith('task "send", parameter "value": ')
        assert (caught.value.task, caught.value.parameter) == ("send", "value")

    def test_a_model_that_waits_for_a_name_is_refused_until_it_has_it(self) -> None:
        class Order(BaseModel):
            customer: "Buyer"  # type: ignore[name-defined]  # noqa: F821

        with pytest.raises(UnusableAnnotation, match="is not fully defined"):
            taking(Order)
        Order.model_rebuild(_types_namespace={"Buyer": int})
        assert there_and_back(Order, Order(customer=1)) == Order(customer=1)

    def test_a_database_model_is_refused_before_it_is_added(self) -> None:
        class Hero(BaseModel):
            _sa_class_manager: ClassVar[int] = 1

        for annotation in (Hero, list[Hero]):
            with pytest.raises(UnusableAnnotation, match="Hero is a database object"):
                taking(annotation)

    def test_annotations_may_be_strings(self) -> None:
        namespace: dict[str, Any] = {"Person": Person}
        source = (
            "from __future__ import annotations\ndef send(person: Person, *, days: Annotated[int, Field(gt=3)]): ..."
        )
        exec(source, namespace | {"Annotated": Annotated, "Field": Field}, namespace)
        namespace["send"].__globals__.update(namespace)
        codec = Codec(namespace["send"], name="send")
        person = Person(name="a", born=datetime(2026, 1, 1))
        assert codec.load(codec.dump((person,), {"days": 4}))["person"] == person
        assert "greater than 3" in refusal(codec, person, days=1)

    def test_the_type_parameters_of_a_function_are_known(self) -> None:
        def send(value: "Item") -> None: ...  # type: ignore[name-defined]  # noqa: F821

        send.__type_params__ = (TypeVar("Item"),)  # type: ignore[attr-defined]  # as Python 3.12 does
        codec = Codec(send, name="send")
        assert codec.load(codec.dump(([1],), {})) == {"value": [1]}

    def test_serializers_of_an_annotation_are_kept(self) -> None:
        plain = Annotated[Any, PlainSerializer(lambda value: value.isoformat()), AfterValidator(date.fromisoformat)]
        assert there_and_back(plain, date(2026, 1, 1)) == date(2026, 1, 1)

    def test_a_serializer_may_return_what_is_not_yet_json(self) -> None:
        by_uuid = Annotated[str, PlainSerializer(UUID, return_type=Any)]
        assert there_and_back(by_uuid, str(UUID(int=1))) == str(UUID(int=1))

    def test_a_default_that_looks_like_a_schema_is_a_default(self) -> None:
        class Column(BaseModel):
            definition: dict[str, str] = {"type": "any"}

        assert there_and_back(Column, Column()).definition == {"type": "any"}
        assert there_and_back(Column, Column()).model_fields_set == set()

    def test_fields_named_as_the_keys_of_a_schema_are_fields(self) -> None:
        class Confusing(BaseModel):
            type: str = "any"
            config: dict[str, int] = {}
            default: SecretStr = SecretStr("")
            function: int = 0
            cls: bytes = b""

        value = Confusing(type="any", config={"a": 1}, default=SecretStr("b"), function=1, cls=b"\xff")
        assert there_and_back(Confusing, value) == value


class TestReadingAgain:
    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ('{"value": "x"}', "value: Input should be a valid integer"),
            ("{}", "value: Field required"),
            ('{"value": 1, "old": 2}', "old: Extra inputs are not permitted"),
            ("[]", "Input should be an object"),
            ("{", "Invalid JSON"),
        ],
    )
    def test_arguments_that_do_not_fit_any_more_are_unreadable(self, text: str, reason: str) -> None:
        with pytest.raises(
            Unreadable, match='task "send", arguments: the stored value no longer fits the sig'
        ) as caught:
            taking(int).load(text)
        assert reason in str(caught.value)
        assert caught.value.task == "send"

    def test_a_field_that_a_type_lost_is_ignored(self) -> None:
        for annotation in (Visit, Address):
            value = {"day": "2026-01-01", "street": "a", "lost": 1}
            assert type(taking(annotation).load(json.dumps({"value": value}))["value"]) is annotation


class TestResults:
    @pytest.mark.parametrize(
        ("annotation", "value"),
        [
            (int, 3),
            (datetime, datetime(2026, 1, 1, tzinfo=UTC)),
            (Login, Login(user="a", password=SecretStr("b"))),
            (dict[UUID, bytes], {UUID(int=1): b"\xff"}),
            ("int", 3),
            (Person | None, Person(name="a", born=datetime(2026, 1, 1))),
        ],
    )
    def test_a_result_comes_back_equal(self, annotation: Any, value: Any) -> None:
        codec = returning(annotation)
        assert codec.load(codec.dump(value)) == value

    @pytest.mark.parametrize("annotation", [None, int | None, Any])
    def test_no_result_is_no_text(self, annotation: Any) -> None:
        codec = returning(annotation)
        assert codec.dump(None) is None
        assert codec.load(None) is None

    @pytest.mark.parametrize("annotation", [int, Person])
    def test_nothing_is_no_result_of_a_function_that_returns_something(self, annotation: Any) -> None:
        codec = returning(annotation)
        assert codec.dump(None) is None
        with pytest.raises(UnstorableResult, match="no value of its type is stored"):
            codec.load(None)

    @pytest.mark.parametrize("annotation", [User, "Unknown", Any, ClassVar[int]])
    def test_without_a_usable_annotation_plain_json_comes_back_equal(self, annotation: Any) -> None:
        codec = returning(annotation)
        assert codec.load(codec.dump({"a": [1, None]})) == {"a": [1, None]}
        with pytest.raises(UnstorableResult, match='task "count", result: found date: JSON alone does not give date'):
            codec.dump(date(2026, 1, 1))

    def test_what_json_cannot_hold_is_named_wherever_it_is(self) -> None:
        rows = [{"number": number} for number in range(5000)]
        with pytest.raises(UnstorableResult, match=r"does not give dict back as it is; annotate it .the key 1 is"):
            returning(Any).dump({"rows": [*rows, {1: "one"}]})
        with pytest.raises(UnstorableResult, match="does not give date back as it is"):
            returning(Any).dump({"rows": [*rows, {"day": date(2026, 1, 1)}]})

    def test_a_function_without_an_annotation_may_return_plain_json(self) -> None:
        codec = ResultCodec(lambda: None, name="count")
        assert codec.load(codec.dump([1, "a"])) == [1, "a"]

    def test_a_result_of_another_type_is_refused(self) -> None:
        with pytest.raises(UnstorableResult, match="found str: Input should be a valid integer") as caught:
            returning(int).dump("x")
        assert caught.value.task == "count"
        with pytest.raises(UnstorableResult, match="found int: Input should be None"):
            returning(None).dump(3)

    def test_a_generator_is_not_consumed(self) -> None:
        numbers = (number for number in range(3))
        with pytest.raises(UnstorableResult, match="it can be read only once"):
            returning(list[int]).dump(numbers)
        assert list(numbers) == [0, 1, 2]

    def test_a_result_that_does_not_fit_any_more_is_unreadable(self) -> None:
        with pytest.raises(Unreadable, match=r'task "count", result: .*Input should be a valid integer'):
            returning(int).load('"x"')


class TestSame:
    @pytest.mark.parametrize(
        ("given", "loaded"),
        [
            (nan, 1.0),
            ([nan], [nan, nan]),
            ([nan, 1], [nan, 2]),
            ({"a": nan}, {"b": nan}),
            ({"a": nan, "b": 1}, {"a": nan, "b": 2}),
            ({nan, 1.0}, {nan, 2.0}),
            ({nan}, {nan, 2.0}),
            ([nan], (nan,)),
            (Visit(date(2026, 1, 1), nan), Visit(date(2026, 1, 2), nan)),
            (WithoutEquality(1), WithoutEquality(2)),
            (Meters(1), Meters(2)),
            (object(), object()),
            (datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=UTC)),
            (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)),
            (Address(street="a"), Address(street="b")),
            (Extensible(a=1), Extensible(a=2)),
            ("a", "b"),
        ],
    )
    def test_what_differs_is_not_the_same(self, given: Any, loaded: Any) -> None:
        assert not same(given, loaded)

    def test_nan_is_the_same(self) -> None:
        assert isnan(nan) and same(nan, float("nan")) and same(SimpleNamespace(a=1), SimpleNamespace(a=1))


def test_a_call_s_arguments_are_known_with_their_defaults() -> None:
    def pay(user: str, copies: int = 1, *rest: int, note: str = "") -> None: ...

    bound = Codec(pay, name="pay", injected=["note"]).bound(("ada",), {}, "{}")
    assert (bound.args, bound.kwargs, bound.values, bound.stored) == (("ada",), {}, {"user": "ada", "copies": 1}, "{}")
