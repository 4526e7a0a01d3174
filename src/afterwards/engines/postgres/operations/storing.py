"""Store and publish tasks."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from afterwards.core import storing
from afterwards.core.claim import NOTHING_PAUSED, Claim, Paused
from afterwards.core.errors import QueueFull
from afterwards.core.storing import NOTHING_LOADED, Key, KeyKind, Loaded
from afterwards.core.task import NewTask, State, Task
from afterwards.engines.postgres import rows
from afterwards.engines.postgres.operations import changing, looking, reading, successors
from afterwards.engines.postgres.rows import COLUMNS, NEW, as_json, known_ids, recordset
from afterwards.engines.postgres.work import Conflict, Operation, Work, begin, change, fetch

_DEFAULTS = {"attempt": "0", "failed": "0", "plain": "false", "limit_key": "''", "rerun_after_crash": "true"}

INSERT = f"""
    INSERT INTO afterwards_tasks ({", ".join(NEW)})
    SELECT {", ".join(f"coalesce({name}, {_DEFAULTS[name]})" if name in _DEFAULTS else name for name in NEW)}
    FROM {recordset("new", NEW)}
"""

# In a transaction of the application, an error would end the whole transaction.
INSERT_JOINED = f"{INSERT} ON CONFLICT DO NOTHING"

INSERT_ALIASES = f"""
    INSERT INTO afterwards_aliases (id, task) SELECT id, task FROM {recordset("new", ["id"], task="uuid")}
    ON CONFLICT DO NOTHING
"""

# Locked, so that none of them ends before the tasks behind it are stored: whoever ends it then finds these. But a
# transaction of the application may stay open for long. It keeps no worker waiting, and only prevents deletion.
_LOCK = {False: "FOR SHARE", True: "FOR KEY SHARE"}

_LOAD = f"""
    SELECT {COLUMNS} FROM afterwards_tasks t
    WHERE t.seq IN (
        SELECT seq FROM afterwards_tasks WHERE id = ANY (%s::uuid[])
        UNION
        SELECT seq FROM afterwards_tasks WHERE unique_key = ANY (%s::text[]) AND finished_at IS NULL
        UNION
        SELECT seq FROM afterwards_tasks WHERE idempotency_key = ANY (%s::text[])
    )
    ORDER BY t.seq
"""

LOAD = {joined: f"{_LOAD} {lock}" for joined, lock in _LOCK.items()}

LOAD_PREDECESSORS = {
    joined: f"SELECT {COLUMNS} FROM afterwards_tasks t WHERE t.id = ANY (%s::uuid[]) ORDER BY t.seq {lock}"
    for joined, lock in _LOCK.items()
}

ALIASES = "SELECT id::text, task::text FROM afterwards_aliases WHERE id = ANY (%s::uuid[])"

# One enqueue after the other for each queue that may be full: otherwise two would see the same last place.
LOCK = "SELECT pg_advisory_xact_lock(key), {clock} FROM unnest(%s::bigint[]) AS key"

HASHES = (
    "SELECT DISTINCT hashtextextended({schema} || %s || name, 0) AS key FROM unnest(%s::text[]) AS name ORDER BY key"
)

WAITING_IN = """
    SELECT wanted.queue,
        (SELECT count(*) FROM afterwards_tasks t WHERE t.state = 'waiting' AND t.queue = wanted.queue)
        + (SELECT count(*) FROM afterwards_tasks t WHERE t.state = 'scheduled' AND t.queue = wanted.queue)
        + (
            SELECT count(*) FROM afterwards_tasks t
            WHERE t.state = 'queued' AND t.limit_key = '' AND NOT t.suspect AND t.queue = wanted.queue
        )
        + (
            SELECT count(*) FROM afterwards_tasks t
            WHERE t.state = 'queued' AND t.limit_key <> '' AND NOT t.suspect AND t.queue = wanted.queue
        )
        + (SELECT count(*) FROM afterwards_tasks t WHERE t.state = 'queued' AND t.suspect AND t.queue = wanted.queue)
    FROM unnest(%s::text[]) AS wanted (queue)
"""


class Call(NamedTuple):
    """One call of ``enqueue``."""

    tasks: Sequence[NewTask]
    claim: Claim | None = None

    @property
    def has_rules(self) -> bool:
        """Return True if it may have to wait for others that store tasks with the same keys, or in the same queue."""
        return any(map(storing.has_rules, self.tasks))


class Stored(NamedTuple):
    """The tasks that answer a call or its refusal, and the tasks that are new."""

    answer: list[Task] | QueueFull
    made: Sequence[Task] = ()


def enqueue(work: Work, calls: Sequence[Call], *, is_alone: bool = False) -> Operation[list[Stored]]:
    """Store the tasks of several calls. A full queue refuses its call, and the others are stored.

    ``is_alone``: the transaction does nothing else. It may begin with the statements of this operation.
    """
    desk = _Desk(work, calls, is_alone=is_alone)
    yield from desk.load()
    yield from begin(work)
    stored = [desk.store(call) for call in calls]
    yield from desk.write()
    return stored


def enqueue_or_raise(work: Work, tasks: Sequence[NewTask]) -> Operation[list[Task]]:
    """Return the tasks that answer the call. Raises QueueFull."""
    [stored] = yield from enqueue(work, [Call(tasks)])
    if isinstance(stored.answer, QueueFull):
        raise stored.answer
    return stored.answer


def full_queue(work: Work, tasks: Sequence[NewTask]) -> Operation[QueueFull | None]:
    """Return the refusal that storing these tasks would meet. It writes nothing."""
    desk = _Desk(work, [Call(tasks)])
    yield from desk.load()
    answer = desk.store(Call(tasks)).answer
    return answer if isinstance(answer, QueueFull) else None


def is_limited(tasks: Sequence[NewTask]) -> bool:
    """Return True if a full queue might refuse any of the tasks."""
    return bool(storing.limited_queues(tasks))


def lock(work: Work, kind: str, names: Iterable[str]) -> Operation[None]:
    """Take these locks until the end of the transaction, in an order that all transactions share.

    The transaction goes on at the time when it has them: limits and leases are counted from then.
    """
    keys = yield from fetch(HASHES, f":{kind}:", sorted(names))
    work.have_waited(at for _, at in (yield from fetch(LOCK, [key for [key] in keys])))


class _Desk:
    """The stored tasks that matter to some calls, and the tasks that these calls add."""

    def __init__(self, work: Work, calls: Sequence[Call], *, is_alone: bool = False) -> None:
        self._work = work
        self._is_alone = is_alone  # the transaction does nothing else
        self._calls = calls
        self._tasks = [new for call in calls for new in call.tasks]
        self._by_id: dict[str, Task] = {}
        self._by_key: dict[Key, Task] = {}
        self._waiting: Counter[str] = Counter()
        self._may_lease: set[int] = set()  # the numbers of calls
        self._paused: Paused = NOTHING_PAUSED
        self._made: list[Task] = []
        self._aliases: dict[str, str] = {}

    def load(self) -> Operation[None]:
        queues = storing.limited_queues(self._tasks)
        if queues and not self._work.joined:  # else the queue would be closed to others until the application commits
            yield from lock(self._work, "queue", queues)
        if self._work.repeated or any(map(storing.has_rules, self._tasks)):
            yield from self._load_all()
        else:
            yield from self._load_predecessors()
        if queues:
            self._waiting.update(dict((yield from fetch(WAITING_IN, sorted(queues)))))
        if any(call.claim for call in self._calls):
            yield from self._look()

    def store(self, call: Call) -> Stored:
        loaded = NOTHING_LOADED
        if self._by_id or self._by_key:
            ids = storing.needed_ids(call.tasks)
            loaded = Loaded(by_id={id: self._by_id[id] for id in ids if id in self._by_id}, by_key=self._by_key)
        claim = call.claim if id(call) in self._may_lease else None
        stored = storing.store_all(call.tasks, loaded, self._work.now, claim=claim, paused=self._paused)
        if full := storing.full_queue(call.tasks, stored.made, self._waiting):
            return Stored(full)
        self._made += stored.made
        self._aliases |= stored.aliases
        if len(self._calls) > 1:
            self._remember(stored)
        return Stored(stored.answers, stored.made)

    def write(self) -> Operation[None]:
        """Insert the new tasks. It crosses a transaction that has stored one of them, or one with its key."""
        yield from self._insert()
        if self._aliases:
            aliases = [{"id": rows.id_to_store(id), "task": task} for id, task in self._aliases.items()]
            yield from change(INSERT_ALIASES, as_json(aliases))
        yield from changing.add_failures((task, failure) for task in self._made for failure in task.failures)
        if self._work.joined and (before := [task.after for task in self._made if task.after is not None]):
            yield from successors.note_left(self._work, before)  # they may end before the application commits
        held = {new.id for new in self._tasks if new.held}
        self._work.queued |= any(
            task.state is State.QUEUED or (task.state is State.SCHEDULED and task.id not in held) for task in self._made
        )

    def _insert(self) -> Operation[None]:
        """Insert the new tasks; if nothing else is to be stored, with the commit in the same message."""
        work, made = self._work, self._made
        if not made:
            return
        chosen = {new.id for new in self._tasks if new.run_at is not None}
        added = as_json(rows.from_new(task, at_an_instant=task.id in chosen) for task in made)
        work.leased += [task for task in made if task.state is State.RUNNING]
        if work.joined:
            if (yield from change(INSERT_JOINED, added)) < len(made):
                raise Conflict
            return
        work.is_last = self._is_alone and not (self._aliases or any(task.failures for task in made))
        work.is_repeatable = work.is_last and not work.leased
        yield from change(INSERT, added)

    def _load_predecessors(self) -> Operation[None]:
        after = {new.after for new in self._tasks if new.after is not None}
        if after := after - {new.id for new in self._tasks} if after else after:
            ids = yield from self._through_aliases(known_ids(after))
            yield from self._note((yield from fetch(LOAD_PREDECESSORS[self._work.joined], [*ids.values()])), ids)

    def _load_all(self) -> Operation[None]:
        keys = [*dict.fromkeys(key for new in self._tasks for key in storing.keys_of(new))]
        if keys and not self._work.joined:  # in one order, otherwise two transactions could wait for each other
            yield from lock(self._work, "key", {f"{key.kind}:{key.text}" for key in keys})
        ids = yield from self._through_aliases(known_ids(storing.needed_ids(self._tasks)))
        unique = [key.text for key in keys if key.kind is KeyKind.UNIQUE]
        idempotent = [key.text for key in keys if key.kind is KeyKind.IDEMPOTENCY]
        found = yield from fetch(LOAD[self._work.joined], [*ids.values()], unique, idempotent)
        tasks = yield from self._note(found, ids)
        for task in tasks:
            self._by_key |= _keys(task)

    def _through_aliases(self, ids: Sequence[str]) -> Operation[dict[str, str]]:
        """Return the ids of tasks by the ids that stand for them."""
        aliases: dict[str, str] = dict((yield from fetch(ALIASES, [*ids])))
        return {id: aliases.get(id, id) for id in ids}

    def _note(self, found: Sequence[rows.Row], ids: dict[str, str]) -> Operation[list[Task]]:
        tasks = yield from reading.to_tasks(found)
        self._work.note_locked(tasks)
        by_own_id = {task.id: task for task in tasks}
        self._by_id |= {id: by_own_id[task] for id, task in ids.items() if task in by_own_id}
        return tasks

    def _remember(self, stored: storing.Stored) -> None:
        """Let the calls behind this one in the same transaction see what it stores."""
        made = {task.id: task for task in stored.made}
        for task in stored.made:
            self._by_key |= _keys(task)
            self._waiting[task.queue] += task.state.pending
        self._by_id |= made
        standing = {task.id: task for task in stored.answers}
        self._by_id |= {id: standing[task] for id, task in stored.aliases.items() if task in standing}

    def _look(self) -> Operation[None]:
        """Find out which calls may lease their tasks: those whose worker has no older task waiting."""
        seen = yield from looking.look()
        self._paused = seen.paused
        answers: dict[object, bool] = {}
        for call in self._calls:
            if call.claim:
                wanted = call.claim.names, call.claim.queues, frozenset(call.claim.limits)
                if wanted not in answers:
                    answers[wanted] = yield from looking.anything_for(call.claim, seen)
                if not answers[wanted]:
                    self._may_lease.add(id(call))


def _keys(task: Task) -> dict[Key, Task]:
    """Return the task by the keys that it has now: a unique key is free again when the task has finished."""
    return {key: task for key in storing.keys_of(task) if not (key.kind is KeyKind.UNIQUE and task.state.finished)}
