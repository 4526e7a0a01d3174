"""The lanes from which the next claim will probably take tasks, so that it need not look before it takes."""

from collections.abc import Sequence

from afterwards.core.routing import Route
from afterwards.core.task import Task
from afterwards.engine import Claim
from afterwards.engines.postgres.operations import claiming
from afterwards.engines.postgres.operations.looking import QUEUED, Look

_Kind = tuple[frozenset[str], frozenset[str] | None]


class LikelyLanes:
    """The lanes that had tasks when a claim last looked. All methods are called in the engine's thread."""

    def __init__(self) -> None:
        self._seen: tuple[_Kind, Sequence[Route]] | None = None
        self._is_expecting = False

    def expect(self) -> None:
        """Note that there is probably something to claim."""
        self._is_expecting = True

    def routes(self, claim: Claim) -> Sequence[Route]:
        """Return the lanes to take from at once; none if the claim should look first."""
        is_expecting, self._is_expecting = self._is_expecting, False
        if (
            not is_expecting
            or self._seen is None
            or claim.limit < 1
            or claim.ids is not None
            or claim.starts is not None
        ):
            return ()
        kind, routes = self._seen
        return routes if kind == _kind(claim) else ()

    def look(self, claim: Claim, seen: Look) -> None:
        """Remember what a claim has seen, if it had something to take and nothing else to do."""
        if (routes := seen.served(claim, QUEUED)) and claiming.is_usual(claim, seen):
            self._seen = _kind(claim), routes

    def note(self, claim: Claim, taken: list[Task]) -> list[Task]:
        """Expect more after a claim that took as many as it could. Returns its tasks."""
        self._is_expecting |= 0 < claim.limit == len(taken)
        return taken


def _kind(claim: Claim) -> _Kind:
    return claim.names, claim.queues
