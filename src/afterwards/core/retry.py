"""``Retry``: how often, how soon and after which exceptions a failed task runs again."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Never

from afterwards.core.errors import InvalidOption, RefusedValue
from afterwards.core.raised_elsewhere import RaisedElsewhere
from afterwards.core.spans import LONGEST_SPAN
from afterwards.core.spelling import check_names
from afterwards.core.text import shown

MOST_TIMES = 1_000_000_000

LONGEST = LONGEST_SPAN.total_seconds()


@dataclass(frozen=True, slots=True, init=False)
class Retry:
    """A retry policy: exponential backoff with full jitter.

    ``times`` counts additional runs: ``Retry(3)`` means at most four attempts. Waits are seconds or timedeltas. The
    second attempt starts after ``wait``. Each further wait is multiplied by ``factor``, up to ``max_wait``. With
    ``jitter`` the wait is drawn uniformly from zero to that value, so that tasks that failed together are not retried
    together. ``on`` names the exceptions that are retried (default: all), ``never`` those that are not; ``never`` wins.
    """

    times: int
    wait: float
    factor: float
    max_wait: float
    jitter: bool
    on: tuple[type[BaseException], ...]
    never: tuple[type[BaseException], ...]

    def __init__(
        self,
        times: int = 0,
        wait: float | timedelta = 1,
        factor: float = 2,
        max_wait: float | timedelta = 600,
        jitter: bool = True,
        on: type[BaseException] | Iterable[type[BaseException]] = (BaseException,),
        never: type[BaseException] | Iterable[type[BaseException]] = (),
        **unknown: Never,
    ) -> None:
        """Raises InvalidOption."""
        check_names(Retry, unknown)
        given: dict[str, object] = {"times": times, "wait": _seconds(wait), "factor": factor}
        given |= {"max_wait": _seconds(max_wait), "jitter": jitter}
        given |= {"on": _exceptions("on", on), "never": _exceptions("never", never)}
        for field, value in given.items():
            object.__setattr__(self, field, value)
        self._check()

    def _check(self) -> None:
        problem = f"={shown(self.times)}: give the number of additional runs, zero or more"
        if isinstance(self.times, bool) or not isinstance(self.times, int):
            raise InvalidOption(f"retries{problem}")
        if not 0 <= self.times <= MOST_TIMES:
            raise RefusedValue("retries", problem)
        for field in ("wait", "factor", "max_wait"):
            number = getattr(self, field)
            problem = f"Retry({field}={shown(number)}): give a number{_UNITS[field]}, at most {LONGEST:.0f}"
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise InvalidOption(problem)
            if not abs(number) <= LONGEST:
                raise RefusedValue("retries", f"={problem}")
        if not isinstance(self.jitter, bool):
            raise InvalidOption(f"Retry(jitter={self.jitter!r}): give True or False")
        if self.wait < 0 or self.factor < 1 or self.max_wait < self.wait:
            raise RefusedValue(
                "retries",
                f"=Retry(wait={self.wait!r}, factor={self.factor!r}, max_wait={self.max_wait!r}): "
                "wait is at least 0, factor at least 1, max_wait at least wait",
            )
        if not self.on:
            raise InvalidOption("Retry(on=()): no exception would be retried: name exceptions, or leave it out for all")

    def covers(self, error: BaseException) -> bool:
        """Return True if the policy retries this exception."""
        if issubclass(type(error), RaisedElsewhere):
            return bool(getattr(error, "retried", True))
        try:
            return isinstance(error, self.on) and not isinstance(error, self.never)
        except BaseException:  # the user's `__class__` property or metaclass may raise anything
            return _is_any_of(error, self.on) and not _is_any_of(error, self.never)

    def delay(self, failed: int, random: float) -> timedelta:
        """Return the wait after a number of failures (1 for the first). ``random`` is between 0 and 1.

        >>> Retry(5, wait=1, factor=2, jitter=False).delay(3, random=0.5).total_seconds()
        4.0
        >>> Retry(5, wait=1, factor=2).delay(3, random=0.5).total_seconds()
        2.0
        >>> Retry(5, wait=1, max_wait=10, jitter=False).delay(2000, random=0.5).total_seconds()
        10.0
        """
        try:
            ceiling = min(self.max_wait, self.wait and self.wait * self.factor ** (failed - 1))
        except OverflowError:
            ceiling = self.max_wait
        wait = ceiling * random if self.jitter else ceiling
        return timedelta(seconds=wait) if wait < LONGEST_SPAN.total_seconds() else LONGEST_SPAN


def _is_any_of(error: BaseException, classes: Iterable[type[BaseException]]) -> bool:
    """Return True if the exception is of one of the classes. Runs no code of the user."""
    return not {*map(id, type.mro(type(error)))}.isdisjoint(map(id, classes))


def _seconds(span: float | timedelta) -> float:
    return span.total_seconds() if isinstance(span, timedelta) else span


def _exceptions(field: str, given: object) -> tuple[type[BaseException], ...]:
    """Return one exception class or several as a tuple. Raises InvalidOption."""
    classes = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
    for cls in classes:
        if not (isinstance(cls, type) and issubclass(cls, BaseException)):
            raise InvalidOption(
                f"Retry({field}={cls!r}): give exception classes, as ValueError or (ValueError, OSError)"
            )
    return classes


_UNITS = {"wait": " of seconds", "factor": "", "max_wait": " of seconds"}
