"""The first and the last lines of an attempt are kept."""

from datetime import UTC, datetime

from afterwards.core.task import LogLine
from afterwards.execution.attempt_log import BYTES, LINES, AttemptLog

AT = datetime(2026, 1, 1, tzinfo=UTC)


def line(message: str) -> LogLine:
    return LogLine(attempt=1, at=AT, level="INFO", logger="shop", message=message)


def logged(*messages: str) -> list[str]:
    log = AttemptLog()
    for message in messages:
        log.add(line(message))
    return [one.message for one in log.lines()]


def test_as_many_lines_as_fit_are_all_kept() -> None:
    messages = [str(number) for number in range(2 * LINES)]
    assert logged(*messages) == messages


def test_a_line_says_how_many_are_left_out_between_the_first_and_the_last() -> None:
    messages = [str(number) for number in range(2 * LINES + 7)]
    assert logged(*messages) == [*messages[:LINES], "(7 lines are left out here)", *messages[-LINES:]]


def test_long_lines_count_by_their_bytes() -> None:
    long = "é" * (BYTES // 4)  # half of what one end holds
    kept = logged("a" + long, long, "b", *[long] * 5, "last")
    assert kept[:1] == ["a" + long] and "left out here" in kept[1] and kept[-1] == "last"
    assert sum(len(message.encode()) for message in kept) <= 2 * BYTES + 100


def test_once_a_line_did_not_fit_no_later_one_is_among_the_first() -> None:
    kept = logged("x" * (BYTES - 1), "yy", "z")
    assert kept == ["x" * (BYTES - 1), "yy", "z"], "in the order logged"
