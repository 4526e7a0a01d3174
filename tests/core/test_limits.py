"""How many tasks may start now."""

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterwards.core.errors import InvalidOption
from afterwards.core.limits import Group, Limit, Rate, Room, Used, admit, by_group, group_of, next_room, room
from afterwards.core.options import limit_of

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
A, B = ("f", "a"), ("f", "b")


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("10/m", Rate(10, timedelta(minutes=1))),
        ("1/30s", Rate(1, timedelta(seconds=30))),
        ("10000/d", Rate(10_000, timedelta(days=1))),
        ("5/2h", Rate(5, timedelta(hours=2))),
    ],
)
def test_a_rate_is_a_number_and_a_span(text: str, rate: Rate) -> None:
    assert Rate.of(text) == rate


@pytest.mark.parametrize(
    "text", ["", "10", "10/", "/m", "0/m", "10/0s", "10001/d", "-1/m", "1.5/m", "10/w", "\u0661/m", 5]
)
def test_what_is_no_rate_is_refused(text: Any) -> None:
    with pytest.raises(InvalidOption, match="rate_limit="):
        Rate.of(text)


def test_a_function_without_limits_has_none() -> None:
    assert limit_of(None, None) is None
    assert limit_of(3, None) == Limit(max_concurrency=3)
    assert limit_of(None, "1/s") == Limit(rate=Rate(1, SECOND))
    with pytest.raises(InvalidOption, match="max_concurrency=0"):
        limit_of(0, None)


def test_room_is_what_the_running_ones_leave() -> None:
    limit = Limit(max_concurrency=3)
    assert [room(limit, Used(running), NOW).count for running in (0, 2, 3, 5)] == [3, 1, 0, 0]
    assert room(limit, Used(3), NOW).more_at is None


def test_room_is_what_the_last_starts_leave() -> None:
    limit = Limit(rate=Rate(2, 10 * SECOND))
    assert room(limit, Used(), NOW) == Room(2)
    assert room(limit, Used(0, [NOW - 9 * SECOND]), NOW) == Room(1, NOW + SECOND)
    assert room(limit, Used(0, [NOW - 9 * SECOND, NOW - 4 * SECOND]), NOW) == Room(0, NOW + SECOND)
    assert room(limit, Used(0, [NOW - 10 * SECOND, NOW - 4 * SECOND]), NOW) == Room(1, NOW + 6 * SECOND)


def test_the_smaller_of_both_decides() -> None:
    limit = Limit(max_concurrency=1, rate=Rate(2, 10 * SECOND))
    assert room(limit, Used(1, [NOW]), NOW) == Room(0)
    assert room(limit, Used(0, [NOW, NOW]), NOW) == Room(0, NOW + 10 * SECOND)
    assert room(Limit(), Used(), NOW) == Room(None)


def test_the_next_room_is_that_of_the_first_rate_that_is_used_up() -> None:
    rooms = [Room(0), Room(0, NOW + 2 * SECOND), Room(0, NOW + SECOND), Room(1, NOW), Room(None)]
    assert next_room(rooms) == NOW + SECOND
    assert next_room([]) is None


def test_tasks_from_before_the_limit_count_with_all() -> None:
    assert group_of("f", "", {}) == group_of("f", "*", {}) != group_of("f", "ada", {})


def test_tasks_of_a_function_count_together_under_all_its_names() -> None:
    limit = Limit(max_concurrency=1, counts_as="old")
    limits = {"old": limit, "new": limit, "other": Limit(max_concurrency=2)}
    assert group_of("new", "ada", limits) == group_of("old", "ada", limits) == ("old", "ada")
    assert group_of("other", "ada", limits) == ("other", "ada")
    assert by_group(limits) == {"old": limit, "other": limits["other"]}


class One(NamedTuple):
    item: int
    suspect: bool
    group: Group


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from([A, B, ("g", "*")])), max_size=20),
    st.integers(0, 5),
    st.integers(0, 5),
    st.integers(0, 8),
    st.integers(0, 3),
)
def test_admission_is_greedy_and_passes_nothing(
    drawn: list[tuple[bool, Group]], room_a: int, room_b: int, limit: int, suspects: int
) -> None:
    candidates = [(number, suspect, group) for number, (suspect, group) in enumerate(drawn)]
    rooms = {A: Room(room_a), B: Room(room_b), ("g", "*"): Room(None)}
    admitted = list(admit(candidates, rooms, limit=limit, suspects=suspects))
    drawn_ones = [One(*candidate) for candidate in candidates]
    chosen = [drawn_ones[number] for number in admitted]
    assert admitted == sorted(admitted)
    assert len(chosen) <= limit
    assert sum(one.suspect for one in chosen) <= suspects
    assert sum(one.group == A for one in chosen) <= room_a
    assert sum(one.group == B for one in chosen) <= room_b
    for left_out in (one for one in drawn_ones if one.item not in admitted):  # each for a reason that held by then
        before = [one for one in chosen if one.item < left_out.item]
        count = rooms[left_out.group].count
        full = count is not None and sum(one.group == left_out.group for one in before) >= count
        no_suspect = left_out.suspect and sum(one.suspect for one in before) >= suspects
        assert full or no_suspect or len(before) >= limit
