"""The health of the worker of this process, part by part."""

from datetime import timedelta
from time import monotonic

from afterwards import telemetry
from afterwards.core.verdict import Role, Vitals
from afterwards.execution.lateness import Lateness

TOO_OFTEN = 3
"""Consecutive failures after which a part of the worker is not expected to recover."""


class Health:
    """Failures of a worker's parts, reported from any thread. An engine that is away for a while is no failure."""

    def __init__(self) -> None:
        self._failures: dict[str, int] = {}
        self._gone = ""  # why the worker is gone although the application still serves
        self.trouble: str | None = None
        """Reason why tasks added now would not run; None if they would."""
        self.lateness = Lateness()
        self._role = Role.SENDER
        self._claimed_at: float | None = None

    def failed(self, doing: str, error: BaseException) -> None:
        """Record that a part of the worker failed with an error of its own. It tries again."""
        telemetry.loop_broken(doing, error)
        self._failures[doing] = self._failures.get(doing, 0) + 1
        self._judge()

    def well(self, doing: str) -> None:
        """Record that a part of the worker has done its work."""
        if self._failures and self._failures.pop(doing, 0):
            self._judge()

    def gone(self, reason: str) -> None:
        """Record that the worker is gone, and that none will start while the application serves."""
        self._gone = reason
        self._judge()

    def begin(self, *, role: Role = Role.WORKER) -> None:
        """Reset for a process that starts: failures of the previous worker do not count."""
        self._role = role
        self._claimed_at = None
        self.lateness = Lateness()
        self._failures.clear()
        self._gone = ""
        self.trouble = None

    def claims(self) -> None:
        """Record that the worker claims tasks now, or that the dispatcher asks for some or sends them."""
        self._claimed_at = monotonic()

    def rests(self) -> None:
        """Record that it need not do so: the worker has no free slot, or it drains."""
        self._claimed_at = None

    def vitals(self) -> Vitals:
        """Return what a probe needs to know."""
        silent = None if self._claimed_at is None else timedelta(seconds=monotonic() - self._claimed_at)
        return Vitals(trouble=self.trouble, role=self._role, silent=silent, lag=self.lateness.longest())

    def _judge(self) -> None:
        broken = sorted(doing for doing, times in self._failures.copy().items() if times >= TOO_OFTEN)
        before, self.trouble = self.trouble, self._gone or (f"it cannot {broken[0]}" if broken else None)
        if self.trouble and not before:
            telemetry.unfit(self.trouble)
        elif before and not self.trouble:
            telemetry.fit_again()
