"""The health of the worker of this process, part by part."""

from afterwards import telemetry

TOO_OFTEN = 3
"""Consecutive failures after which a part of the worker is not expected to recover."""


class Health:
    """Failures of a worker's parts, reported from any thread. An engine that is away for a while is no failure."""

    def __init__(self) -> None:
        self._failures: dict[str, int] = {}
        self._gone = ""  # why the worker is gone although the application still serves
        self.trouble: str | None = None
        """Reason why tasks added now would not run; None if they would."""

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

    def begin(self) -> None:
        """Reset for a worker that starts: failures of the previous one do not count."""
        self._failures.clear()
        self._gone = ""
        self.trouble = None

    def _judge(self) -> None:
        broken = sorted(doing for doing, times in self._failures.copy().items() if times >= TOO_OFTEN)
        before, self.trouble = self.trouble, self._gone or (f"it cannot {broken[0]}" if broken else None)
        if self.trouble and not before:
            telemetry.unfit(self.trouble)
        elif before and not self.trouble:
            telemetry.fit_again()
