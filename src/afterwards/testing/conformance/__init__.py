"""The behaviour that every engine has, as a test suite for your engine, too."""

from afterwards.testing.conformance.aside import ManyFailures, SettingAside
from afterwards.testing.conformance.cancelling import Cancelling
from afterwards.testing.conformance.chains import Chains
from afterwards.testing.conformance.claiming import Beating, Claiming, Suspecting
from afterwards.testing.conformance.correcting import Correcting
from afterwards.testing.conformance.dispatching import Arriving, DispatchedLimits, Dispatching
from afterwards.testing.conformance.expiring import Expiring, RunningOnce
from afterwards.testing.conformance.fences import Fences
from afterwards.testing.conformance.files import UploadedFiles
from afterwards.testing.conformance.finishing import Finishing, Losing
from afterwards.testing.conformance.history import ComingLate, Logging, Tallying
from afterwards.testing.conformance.joining import Joining, TransactionConformance
from afterwards.testing.conformance.limiting import Filling, Limiting, Pausing
from afterwards.testing.conformance.moving import Moving
from afterwards.testing.conformance.moving_tasks import MovedTasks
from afterwards.testing.conformance.publishing import Publishing
from afterwards.testing.conformance.reading import Pruning, Reading
from afterwards.testing.conformance.reopening import ReopeningConformance
from afterwards.testing.conformance.requeueing import Requeueing
from afterwards.testing.conformance.scheduling import Scheduling
from afterwards.testing.conformance.steering import Deleting, Searching, StartingNow
from afterwards.testing.conformance.storing import Storing
from afterwards.testing.conformance.storing_leased import StoringLeased
from afterwards.testing.conformance.uniqueness import Uniqueness
from afterwards.testing.conformance.waiting import Waiting
from afterwards.testing.conformance.workers import LivingWorkers, WaitingForWorkers

__all__ = ["EngineConformance", "ReopeningConformance", "TransactionConformance"]


class EngineConformance(
    Storing,
    Publishing,
    StoringLeased,
    Joining,
    Claiming,
    Suspecting,
    Beating,
    Dispatching,
    DispatchedLimits,
    Arriving,
    Finishing,
    Losing,
    SettingAside,
    ManyFailures,
    Fences,
    Cancelling,
    Chains,
    Requeueing,
    Correcting,
    Limiting,
    Pausing,
    Filling,
    Uniqueness,
    Expiring,
    RunningOnce,
    Reading,
    Searching,
    StartingNow,
    Deleting,
    Pruning,
    Tallying,
    Logging,
    ComingLate,
    UploadedFiles,
    Scheduling,
    LivingWorkers,
    WaitingForWorkers,
    Waiting,
    Moving,
    MovedTasks,
):
    """Every promise of the ``Engine`` protocol. Subclass it, and give it your engine.

    class TestMyEngine(EngineConformance):
        @pytest.fixture
        async def engine(self, clock: FakeClock) -> AsyncIterator[Engine]:
            async with MyEngine(clock=clock) as engine:
                yield engine

    Each base class tests one subject and can be run alone: ``class TestClaiming(MyFixtures, Claiming)``, where
    ``MyFixtures`` has the fixture. ``ReopeningConformance`` is for engines whose tasks outlive the process.
    ``TransactionConformance`` is for engines that keep tasks in a database that applications use.
    ``afterwards.testing.conformance.generated`` also compares an engine with the one in memory.
    """
