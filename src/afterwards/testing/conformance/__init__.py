"""The behaviour that every engine has, as a test suite for yours too."""

from afterwards.testing.conformance.chains import Chains, Requeueing
from afterwards.testing.conformance.claiming import Beating, Claiming, Suspecting
from afterwards.testing.conformance.fences import Fences
from afterwards.testing.conformance.finishing import Cancelling, Finishing, Losing
from afterwards.testing.conformance.reading import Pruning, Reading
from afterwards.testing.conformance.scheduling import Scheduling
from afterwards.testing.conformance.storing import Publishing, Storing, StoringLeased
from afterwards.testing.conformance.waiting import Waiting

__all__ = ["EngineConformance"]


class EngineConformance(
    Storing,
    Publishing,
    StoringLeased,
    Claiming,
    Suspecting,
    Beating,
    Finishing,
    Losing,
    Fences,
    Cancelling,
    Chains,
    Requeueing,
    Reading,
    Pruning,
    Scheduling,
    Waiting,
):
    """Every promise of the ``Engine`` protocol. Subclass it, and give it your engine.

    class TestMyEngine(EngineConformance):
        @pytest.fixture
        async def engine(self, clock: FakeClock) -> AsyncIterator[Engine]:
            async with MyEngine(clock=clock) as engine:
                yield engine

    ``afterwards.testing.conformance.generated`` (needs Hypothesis) compares an engine with the one in memory besides.
    """
