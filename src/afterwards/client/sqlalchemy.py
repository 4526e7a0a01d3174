"""Store tasks when an SQLAlchemy session commits: in its transaction, if that is on the same database."""

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any
from weakref import ref

from afterwards import engines, telemetry
from afterwards.client.client import Client
from afterwards.client.handle import TaskHandle
from afterwards.client.request import RequestTasks, in_line
from afterwards.client.session_call import Joining, Standing
from afterwards.client.unawaited import Write
from afterwards.core.errors import EngineError, EngineUnavailable, InvalidOption, QueueFull
from afterwards.core.task import NewTask, Task
from afterwards.engine import Answer, CommitMode
from afterwards.engine import Joined as JoinedEngine

if TYPE_CHECKING:  # SQLAlchemy is optional; with a session it is loaded already
    from sqlalchemy.orm import Session, SessionTransaction

IN_SESSION = "afterwards"
"""Key in a session's ``info`` for the calls that wait for it: they live as long as the session."""


def check_session(session: Any) -> None:
    """Raise InvalidOption for an object that is not an SQLAlchemy session."""
    sync_session(session)


def sync_session(session: Any) -> "Session":
    """Return the session that emits the events: the one inside an AsyncSession, the current one of a scoped session."""
    orm = sys.modules.get("sqlalchemy.orm")
    found = session.registry() if callable(getattr(session, "registry", None)) else session
    found = getattr(found, "sync_session", found)
    if orm is None or not isinstance(found, orm.Session):
        kind = session.__qualname__ if isinstance(session, type) else f"an object of type {type(session).__qualname__}"
        raise InvalidOption(
            f"session={kind}: give a session of SQLAlchemy or SQLModel (Session, AsyncSession, scoped_session), "
            "not its class, its sessionmaker or its engine"
        )
    made: Session = found
    return made


def join(session: Any, joining: Joining, request: RequestTasks) -> None:
    """Register a call with a session's open or next transaction: its commit stores the call."""
    found = sync_session(session)
    nested = found.get_nested_transaction()
    joining.within = None if nested is None else id(nested)
    _attach(found).add(request, joining)


def join_alone(session: Any, alone: "Alone") -> Joining:
    """Register a call that belongs to no request: the session's commit stores it."""
    joining = Joining(alone, alone.released, independent=True)
    joining.clean_up = alone.clean_up
    join(session, joining, alone.request)
    return joining


class Alone:
    """A call that belongs to no request and waits for its session's commit."""

    chained = False

    def __init__(
        self, new: NewTask, handle: TaskHandle[Any], request: RequestTasks, clean_up: Write | None = None
    ) -> None:
        self.request = request
        self.clean_up = clean_up  # deletes the files written for it, if it makes no task
        self._new = new
        self._handle = handle
        self.id = new.id
        self.name = new.name
        self.mark_stored = handle.mark_stored
        self.mark_not_stored = handle.mark_not_stored

    def new_task(self, client: Client, *, origin: str | None, after: str | None, held: bool, answered: bool) -> NewTask:
        return self._new

    def released(self) -> None:
        self.request.start_write(self._store)

    async def _store(self) -> None:
        try:
            [stored] = await self.request.client.enqueue([self._new])
        except (EngineError, QueueFull) as error:
            telemetry.lost_after_commit(error, [self.name])
        else:
            self.request.stored([self._new], [stored])
            self.mark_stored(stored.id)
            if self.clean_up and stored.id != self.id:  # another task stands for it
                await self.clean_up()


@dataclass(frozen=True, slots=True)
class Inserted:
    """The tasks of a request, inserted in the transaction that is being committed."""

    request: RequestTasks
    joined: JoinedEngine
    joining: Sequence[Joining]
    tasks: Sequence[NewTask]
    stored: Sequence[Task]

    def committed(self) -> None:
        for one in self.joining:
            one.become(Standing.STORED)
        self.request.stored(self.tasks, self.stored)
        self.joined.committed()
        client = self.request.client
        if client.is_new_to_a_script:
            with suppress(EngineUnavailable):  # the commit has succeeded
                self.request.start_write(client.look_for_workers)
        for one, task in zip(self.joining, self.stored, strict=True):
            if one.clean_up and task.id != one.call.id:  # another task stands for it
                with suppress(EngineUnavailable):  # the commit has succeeded
                    self.request.start_write(one.clean_up)


class Attached:
    """The calls that wait for one session."""

    def __init__(self, session: "Session") -> None:
        self.session = ref(session)  # a weak reference: the session refers to this
        self.heard_of_flushes = False  # it was not attached within the flush that goes on
        self._waiting: dict[RequestTasks, list[Joining]] = {}
        self._inserted: list[Inserted] = []

    def add(self, request: RequestTasks, joining: Joining) -> None:
        if request not in self._waiting:  # forget finished requests: a session may outlive many
            self._waiting = {one: some for one, some in self._waiting.items() if any(each.waits for each in some)}
        self._waiting.setdefault(request, []).append(joining)

    def insert(self, session: "Session") -> None:
        """Insert the waiting calls in the transaction, if it is on the database of the tasks."""
        for request, joining in self._waiting.items():
            some = [one for one in joining if one.standing is Standing.WAITING]
            joined = engines.shared(request.client.url).join(BoundTransaction(session)) if some else None
            if joined is not None:
                if not (request.at_once or request.answered):
                    request.client.must_work()
                tasks = list(in_line([one.call for one in some], request))
                with telemetry.sending(tasks) as sent:
                    stored = joined.enqueue(sent)
                self._inserted.append(Inserted(request, joined, some, tasks, stored))
                for one in some:
                    one.become(Standing.INSERTED)

    def committed(self) -> None:
        inserted, waiting = self._inserted, self._take()
        for some in inserted:
            some.committed()
        released = [one for one in waiting if one.standing is Standing.WAITING]
        for one in released:
            one.become(Standing.RELEASED)
        for tell in dict.fromkeys(one.released for one in released):
            tell()

    def say_who_decides(self) -> None:
        """Log that the transaction of the session's connection decides on the tasks, and not this commit."""
        telemetry.committed_by_another([one.call.name for one in self._all() if one.waits])

    def rolled_back(self) -> None:
        _become(Standing.ROLLED_BACK, self._take())

    def closed(self) -> None:
        unwatched = [one.call.name for one in self._all() if one.waits and not one.watched]
        _become(Standing.CLOSED, self._take())
        if unwatched:
            telemetry.never_committed(None, unwatched)

    def savepoint_released(self, nested: int, outer: int | None) -> None:
        for one in self._all():
            if one.within == nested:
                one.within = outer

    def savepoint_rolled_back(self, nested: int) -> None:
        _become(Standing.ROLLED_BACK, [one for one in self._all() if one.within == nested])

    def _all(self) -> list[Joining]:
        return [one for joining in self._waiting.values() for one in joining]

    def _take(self) -> list[Joining]:
        taken = self._all()
        self._waiting, self._inserted = {}, []
        return taken


class BoundTransaction:
    """The transaction of a session, for an engine to join. The first statement begins it if necessary."""

    def __init__(self, session: "Session") -> None:
        self._session = session

    @property
    def dialect(self) -> str:
        from sqlalchemy.exc import UnboundExecutionError  # with a session it is loaded already

        try:
            return self._session.get_bind().dialect.name
        except UnboundExecutionError:  # each of its tables has its own database
            return ""

    @property
    def commit_mode(self) -> CommitMode:
        from sqlalchemy import TwoPhaseTransaction  # with a session it is loaded already

        connection = self._session.connection()
        if getattr(connection.connection.dbapi_connection, "autocommit", None) is True:  # of sqlite3 it is a number
            return CommitMode.ONE_BY_ONE
        is_prepared = isinstance(connection.get_transaction(), TwoPhaseTransaction)
        return CommitMode.IN_TWO_PHASES if is_prepared else CommitMode.TOGETHER

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Answer:
        connection = self._session.connection()
        if connection.dialect.paramstyle == "numeric_dollar":  # asyncpg's; engines write %s for PostgreSQL's drivers
            numbers = count(1)
            statement = re.sub("%s", lambda _: f"${next(numbers)}", statement)
        result = connection.exec_driver_sql(statement, tuple(values))
        rows = [tuple(row) for row in result.fetchall()] if result.returns_rows else []
        return Answer(rows, result.rowcount)


def _attached(session: "Session") -> Attached | None:
    found: Attached | None = session.info.get(IN_SESSION)
    return found if found and found.session() is session else None  # `info` may have come from another session


def _attach(session: "Session") -> Attached:
    if (found := _attached(session)) is None:
        found = session.info[IN_SESSION] = Attached(session)
        _listen(session)
    return found


def _listen(session: "Session") -> None:
    """Register listeners for the session's lifetime: a listener must not be removed while events are dispatched.

    The listeners are functions of this module: they keep no session alive, and SQLAlchemy adds each only once.
    """
    from sqlalchemy import event  # with a session it is loaded already

    for name, told in _TOLD.items():
        event.listen(session, name, told)


def _before_flush(session: "Session", *_: Any) -> None:
    if attached := _attached(session):
        attached.heard_of_flushes = True


def _after_flush(session: "Session", *_: Any) -> None:
    """Insert calls that were the first ones of their session and were added in a flush: it may be the commit's own."""
    if (attached := _attached(session)) and not attached.heard_of_flushes:
        attached.heard_of_flushes = True
        _insert(session, attached)


def _before_commit(session: "Session") -> None:
    if attached := _attached(session):
        session.flush()  # as the commit does next: events of this flush may add tasks
        _insert(session, attached)


def _insert(session: "Session", attached: Attached) -> None:
    if not session.in_nested_transaction():
        attached.insert(session)


def _after_commit(session: "Session") -> None:
    if attached := _attached(session):
        nested = session.get_nested_transaction()
        if nested is None:
            if _is_part_of_another_transaction(session):
                attached.say_who_decides()
            attached.committed()
        else:
            attached.savepoint_released(id(nested), _savepoint_around(nested))


def _after_rollback(session: "Session") -> None:
    if (attached := _attached(session)) and not session.in_nested_transaction():
        attached.rolled_back()


def _after_transaction_end(session: "Session", transaction: "SessionTransaction") -> None:
    if attached := _attached(session):
        if transaction.parent is None:
            attached.closed()
        elif transaction.nested:
            attached.savepoint_rolled_back(id(transaction))


_TOLD: Mapping[str, Callable[..., None]] = {
    "before_flush": _before_flush,
    "after_flush_postexec": _after_flush,
    "before_commit": _before_commit,
    "after_commit": _after_commit,
    "after_rollback": _after_rollback,
    "after_transaction_end": _after_transaction_end,
}


def _is_part_of_another_transaction(session: "Session") -> bool:
    """Return True if a session that has committed is bound to a connection whose own transaction goes on."""
    from sqlalchemy import Connection  # with a session it is loaded already

    bind = session.bind
    return isinstance(bind, Connection) and bind.in_transaction()


def _savepoint_around(nested: "SessionTransaction") -> int | None:
    around = nested.parent
    while around is not None and not around.nested:
        around = around.parent
    return None if around is None else id(around)


def _become(standing: Standing, joining: Iterable[Joining]) -> None:
    for one in joining:
        if one.waits:
            one.become(standing)
