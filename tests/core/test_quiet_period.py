"""When a process may hold another one's worker to be dead."""

from datetime import timedelta

from afterwards.core import quiet_period
from afterwards.core.quiet_period import QuietPeriod
from afterwards.testing.clock import START

LEASE = timedelta(seconds=30)
DAY = timedelta(days=1)


def quiet_for(seconds: int, begun: QuietPeriod | None = None, ahead: timedelta = timedelta()) -> QuietPeriod:
    """Look each second for so long, on a clock that is so far ahead."""
    state = begun or quiet_period.at_start(LEASE, START, 0.0)
    begin = state.steady
    for second in range(1, seconds + 1):
        steady = begin + second
        state = quiet_period.observe(state, START + timedelta(seconds=steady) + ahead, steady)
    return state


def test_a_new_process_waits_for_a_moment_only() -> None:
    assert not quiet_for(1).long_enough
    assert quiet_for(2).long_enough


def test_those_with_longer_leases_have_the_time_to_notice_a_jump() -> None:
    short = quiet_period.at_start(timedelta(seconds=1), START, 0.0)
    jumped = quiet_for(1, quiet_for(60, short), ahead=DAY)
    assert not quiet_for(1, jumped, ahead=DAY).long_enough
    assert quiet_for(2, jumped, ahead=DAY).long_enough
    assert not quiet_for(1, short).long_enough
    assert quiet_for(2, short).long_enough


def test_a_clock_put_forward_gives_the_living_time_to_renew() -> None:
    jumped = quiet_for(1, quiet_for(60), ahead=DAY)
    assert (jumped.jump, jumped.long_enough) == (DAY, False)
    assert not quiet_for(14, jumped, ahead=DAY).long_enough
    assert quiet_for(15, jumped, ahead=DAY).long_enough


def test_a_clock_put_back_gives_them_time_too() -> None:
    assert not quiet_for(1, quiet_for(60), ahead=-DAY).long_enough


def test_small_steps_that_add_up_are_a_jump() -> None:
    state, ahead = quiet_for(60), timedelta()
    for _ in range(4):
        ahead += timedelta(seconds=1.5)
        state = quiet_for(1, state, ahead)
    assert not state.long_enough


def test_a_process_that_did_not_run_for_a_while_gives_the_others_time() -> None:
    state = quiet_for(60)
    paused = quiet_period.observe(state, START + timedelta(seconds=state.steady + 40), state.steady + 40)
    assert (paused.jump, paused.long_enough) == (timedelta(), False)


def test_trouble_with_the_store_gives_time() -> None:
    state = quiet_for(60)
    assert not quiet_period.interrupted(state, state.steady).long_enough
