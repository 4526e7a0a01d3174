"""What can be set, and what is refused."""

import sys
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from afterwards.core.clock_correction import CORRECTION
from afterwards.core.errors import AfterwardsError, InvalidOption, RefusedValue, UnstorableContext
from afterwards.core.keys import Literal, Template
from afterwards.core.keywords import RunIn, check_call_names, check_task_names
from afterwards.core.options import LONGEST_LEASE, Options, TaskOptions
from afterwards.core.retry import Retry

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def test_the_defaults_are_safe() -> None:
    options = TaskOptions()
    assert (options.queue, options.priority, options.retries.times) == ("default", 0, 0)
    assert (options.timeout, options.delay, options.run_at, options.retention) == (None, None, None, None)
    assert not options.apart


def test_an_invalid_option_is_a_value_error_and_one_of_ours() -> None:
    assert issubclass(InvalidOption, ValueError)
    assert issubclass(InvalidOption, AfterwardsError)


@pytest.mark.parametrize("queue", ["mail", "A.b_c:d-9", "x" * 100])
def test_a_queue_has_a_simple_name(queue: str) -> None:
    assert TaskOptions().changed({"queue": queue}).queue == queue


@pytest.mark.parametrize("queue", ["", "two words", "x" * 101, "é", "line\n", None, 5])
def test_any_other_name_of_a_queue_is_refused(queue: Any) -> None:
    with pytest.raises(InvalidOption, match="queue"):
        TaskOptions().changed({"queue": queue})
    with pytest.raises(InvalidOption, match="queue"):
        Options(queues=frozenset({queue}))


@pytest.mark.parametrize("priority", [-100, 0, 100])
def test_priorities_go_from_minus_100_to_100(priority: int) -> None:
    assert TaskOptions().changed({"priority": priority}).priority == priority


@pytest.mark.parametrize("priority", [-101, 101, 1.5, "high", None, True])
def test_other_priorities_are_refused(priority: Any) -> None:
    with pytest.raises(InvalidOption, match="priority"):
        TaskOptions().changed({"priority": priority})


@pytest.mark.parametrize("name", ["timeout", "delay", "retention"])
def test_spans_are_seconds_or_timedeltas(name: str) -> None:
    assert getattr(TaskOptions().changed({name: 1.5}), name) == timedelta(seconds=1.5)
    assert getattr(TaskOptions().changed({name: timedelta(minutes=1)}), name) == timedelta(minutes=1)
    assert getattr(TaskOptions().changed({name: None}), name) is None
    with pytest.raises(InvalidOption, match="negative"):
        TaskOptions().changed({name: -1})


@pytest.mark.parametrize("name", ["timeout", "delay", "retention"])
@pytest.mark.parametrize("span", ["3", True, float("nan"), float("inf"), -float("inf"), 10**30, object()])
def test_what_is_no_span_is_refused_by_the_name_of_its_option(name: str, span: Any) -> None:
    with pytest.raises(InvalidOption, match=f"^{name}="):
        TaskOptions().changed({name: span})


@pytest.mark.parametrize("name", ["worker", "ordered"])
@pytest.mark.parametrize("value", ["off", 0, None])
def test_a_choice_is_true_or_false(name: str, value: Any) -> None:
    with pytest.raises(InvalidOption, match=f"^{name}="):
        Options(**{name: value})


@pytest.mark.parametrize("timeout", [0, timedelta()])
def test_a_timeout_of_zero_is_refused(timeout: Any) -> None:
    with pytest.raises(InvalidOption, match="timeout"):
        TaskOptions().changed({"timeout": timeout})


def test_a_delay_of_zero_is_none_at_all_and_yet_a_delay() -> None:
    assert TaskOptions().changed({"delay": 0}).apart


def test_run_at_is_an_aware_datetime() -> None:
    assert TaskOptions().changed({"run_at": NOON}).run_at == NOON
    assert TaskOptions().changed({"run_at": NOON}).apart
    with pytest.raises(InvalidOption, match="time zone"):
        TaskOptions().changed({"run_at": NOON.replace(tzinfo=None)})
    with pytest.raises(InvalidOption, match="datetime"):
        TaskOptions().changed({"run_at": "2030-01-01T12:00:00Z"})


def test_delay_and_run_at_exclude_each_other() -> None:
    with pytest.raises(InvalidOption, match="one of them"):
        TaskOptions().changed({"delay": 1, "run_at": NOON})


def test_a_call_may_say_run_at_where_the_function_says_delay_and_the_other_way_round() -> None:
    assert TaskOptions().changed({"delay": 1}).changed({"run_at": NOON}).delay is None
    assert TaskOptions().changed({"run_at": NOON}).changed({"delay": 1}).run_at is None


def test_retries_are_a_number_or_a_retry() -> None:
    assert TaskOptions().changed({"retries": 3}).retries == Retry(3)
    assert TaskOptions().changed({"retries": Retry(3, wait=0)}).retries == Retry(3, wait=0)
    with pytest.raises(InvalidOption, match="retries"):
        TaskOptions().changed({"retries": -1})


def test_an_unknown_option_is_refused_and_the_known_ones_are_listed() -> None:
    with pytest.raises(
        InvalidOption, match=r"retry=.*no such option; did you mean retries\? The options are .*priority.*retries"
    ):
        TaskOptions().changed({"retry": 3})


def test_a_call_stores_only_what_the_worker_cannot_know_otherwise() -> None:
    base = TaskOptions().changed({"retries": 3, "timeout": 60})
    assert base.changed({"queue": "mail", "priority": 5, "delay": 60}).overrides(base) is None
    for settings in ({"timeout": 5}, {"timeout": None}, {"retries": 0}, {"retries": Retry(9, wait=0, jitter=False)}):
        called = base.changed(settings)
        stored = called.overrides(base)
        assert stored is not None
        assert base.overridden(stored) == called


def test_which_exceptions_are_retried_stays_the_functions_own() -> None:
    base = TaskOptions().changed({"retries": Retry(1, on=(OSError,), never=(PermissionError,))})
    stored = base.changed({"retries": 5}).overrides(base)
    assert stored is not None
    assert base.overridden(stored).retries == Retry(5, on=(OSError,), never=(PermissionError,))


def test_a_call_cannot_say_which_exceptions_are_retried() -> None:
    base = TaskOptions().changed({"retries": Retry(1, on=(OSError,))})
    for retry in (Retry(3, on=(ValueError,)), Retry(3, never=(ValueError,))):
        with pytest.raises(InvalidOption, match=r"set it in @task"):
            base.called_with({"retries": retry})
    for allowed in (3, Retry(3, wait=0), Retry(3, on=(OSError,))):
        assert base.called_with({"retries": allowed, "priority": 5}).retries.times == 3


@pytest.mark.parametrize("value", [0, -1, 1.5, "5", True, 10**6, sys.maxsize, pytest.param(10**5000, id="huge")])
@pytest.mark.parametrize("name", ["concurrency", "threads"])
def test_an_installation_needs_room_for_one_task_and_has_room_for_so_many(name: str, value: Any) -> None:
    with pytest.raises(InvalidOption, match=name):
        Options(**{name: value})


def test_concurrency_is_twenty_unless_it_is_given() -> None:
    assert Options().slots == 20
    assert Options(concurrency=3).slots == 3


def test_a_lease_leaves_time_for_three_heartbeats() -> None:
    assert Options(lease=timedelta(seconds=0.3))
    with pytest.raises(InvalidOption, match="lease"):
        Options(lease=timedelta(seconds=0.2))


def test_a_lease_is_an_hour_long_at_most() -> None:
    assert Options(lease=timedelta(hours=1))
    with pytest.raises(InvalidOption, match="an hour at most; it is renewed while a task runs"):
        Options(lease=timedelta(hours=1, microseconds=1))


def test_no_lease_is_taken_for_that_of_a_clock_that_was_ahead() -> None:
    assert LONGEST_LEASE < CORRECTION


def test_a_worker_serves_one_queue_at_least() -> None:
    with pytest.raises(InvalidOption, match="queues is empty"):
        Options(queues=frozenset())


def test_queues_may_be_named() -> None:
    assert Options(queues=frozenset({"mail", "default"})).queues == {"mail", "default"}


def test_a_span_beyond_a_lifetime_is_refused() -> None:
    with pytest.raises(InvalidOption, match="too long"):
        TaskOptions().changed({"delay": 10**11})


def test_a_task_that_expires_before_its_delay_is_over_is_refused() -> None:
    assert TaskOptions().changed({"delay": 5, "expires": 6}).expires == timedelta(seconds=6)
    with pytest.raises(InvalidOption, match="never run"):
        TaskOptions().changed({"delay": 5, "expires": 5})


@pytest.mark.parametrize("value", [None, 0, "no"])
def test_whether_it_runs_again_after_a_crash_is_yes_or_no(value: Any) -> None:
    with pytest.raises(InvalidOption, match="rerun_after_crash="):
        TaskOptions().changed({"rerun_after_crash": value})


def test_after_is_a_handle() -> None:
    with pytest.raises(InvalidOption, match="after='an id'"):
        TaskOptions().called_with({"after": "an id"})


def test_a_call_that_waits_for_its_own_time_or_task_is_apart() -> None:
    class Handle:
        id = "x"
        stored = True

    assert not TaskOptions().apart
    assert TaskOptions().called_with({"delay": 1}).apart
    assert TaskOptions().called_with({"after": Handle()}).apart


def test_keys_are_looked_for_only_where_an_option_asks_for_one() -> None:
    assert not TaskOptions().keyed
    for option in ("unique", "idempotency_key", "concurrency_key"):
        assert TaskOptions().declared({option: "{user}"}).keyed


def test_a_function_s_template_is_one_and_a_call_s_text_is_none() -> None:
    function = TaskOptions().declared({"unique": "{user}"})
    assert dict(function.key_makers())["unique"] == Template("{user}")
    assert dict(function.called_with({"unique": "{user}"}).key_makers())["unique"] == Literal("{user}")


def test_a_queue_may_be_limited_by_itself_or_all_of_them() -> None:
    assert Options().most_queued("mail") is None
    assert Options(max_queued=5).most_queued("mail") == 5
    assert Options(max_queued={"mail": 5}).most_queued("mail") == 5
    assert Options(max_queued={"mail": 5}).most_queued("default") is None


@pytest.mark.parametrize("most", [0, "5", True, {"mail": 0}, {"two words": 5}])
def test_other_limits_of_queues_are_refused(most: Any) -> None:
    with pytest.raises(InvalidOption, match=r"max_queued|queue"):
        Options(max_queued=most)


def test_only_context_variables_can_be_propagated() -> None:
    with pytest.raises(InvalidOption, match="propagate="):
        Options(propagate=("request_id",))  # type: ignore[arg-type]  # on purpose


def test_what_cannot_be_propagated_names_its_variable() -> None:
    error = UnstorableContext("user", "Session")
    assert error.variable == "user"
    assert 'context variable "user" holds a value of type Session' in str(error)


def test_a_context_variable_can_be_propagated() -> None:
    variable: ContextVar[str] = ContextVar("request_id")
    assert Options(propagate=(variable,)).propagate == (variable,)


@pytest.mark.parametrize("value", ["thread", "process", RunIn.THREAD, RunIn.PROCESS])
def test_a_function_runs_in_a_thread_or_in_a_process(value: str) -> None:
    assert RunIn.of(value) == value


@pytest.mark.parametrize("value", ["fibre", "THREAD", "", None, 1, True])
def test_a_function_runs_nowhere_else(value: Any) -> None:
    with pytest.raises(InvalidOption, match=r'run_in=.*: give "thread" or "process"'):
        RunIn.of(value)


@pytest.mark.parametrize(
    ("check", "name", "said"),
    [
        (check_task_names, "after", r"after is for one call, as f\.options\(after=\.\.\.\)"),
        (check_task_names, "rate_limt", "rate_limit"),
        (check_call_names, "rate_limit", r"rate_limit is for a function, as @task\(rate_limit=\.\.\.\)"),
        (check_call_names, "retrys", "retries"),
    ],
)
def test_a_name_that_does_not_belong_there_is_refused_with_where_it_does(check: Any, name: str, said: str) -> None:
    with pytest.raises(InvalidOption, match=said):
        check([name])


def test_names_that_belong_there_are_taken() -> None:
    check_task_names(["retries", "rate_limit"])
    check_call_names(["delay", "priority"])


def test_an_instant_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidOption, match="run_at='tomorrow': give an aware datetime"):
        TaskOptions(run_at="tomorrow")  # type: ignore[arg-type]  # on purpose
    with pytest.raises(RefusedValue, match="give an instant of the years 2 to 9998"):
        TaskOptions(run_at=datetime.max.replace(tzinfo=UTC))
