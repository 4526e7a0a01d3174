"""Every change of a stored task, as a pure function. Engines store what these return, or translate them."""

from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache

from afterwards.core import history
from afterwards.core.claim import Claim
from afterwards.core.clock_correction import corrected, put_back
from afterwards.core.fast_frozen import draft_of, frozen
from afterwards.core.settling import Settled
from afterwards.core.task import (
    Failure,
    NewTask,
    State,
    Task,
)

HOLD = timedelta(seconds=60)
"""How far ahead a held task is scheduled. If its process dies before publishing it, it becomes due by itself."""

Start = datetime | timedelta | None
"""The start of a held task: an instant, a span from the engine's now, or None for at once."""

EXPIRED = "it expired before an attempt could begin"

_Draft = draft_of(Task)


def store(new: NewTask, before: Task | None, now: datetime, claim: Claim | None = None) -> Task:
    """Return the record of a new task. ``before`` is the task that it comes after, if the engine still has it.

    A missing predecessor does not count as a success: a new task that asked to come after it is cancelled. A task that
    comes after it only by the order of a request goes on: the predecessor was stored, and its record may be gone before
    a long request ends. With ``claim``, a task that waits for nothing but the end of its request is leased.
    """
    asked = asked_for(new, now)
    goes_on = before.state is State.SUCCEEDED if before else new.after is None or new.chained
    leased = claim if claim and goes_on and asked <= now and not new.failure else None
    due: datetime | None = asked
    if leased:
        state, due = State.RUNNING, None
    elif not goes_on:
        state = State.WAITING
    elif new.held:
        state, due = State.SCHEDULED, max(asked, _so_long_after(now, HOLD))
    else:
        state, due = (State.SCHEDULED, asked) if asked > now else (State.QUEUED, None)
    draft = _Draft(  # this is most of what a request costs an engine
        id=new.id,
        name=new.name,
        arguments=new.arguments,
        created_at=now,
        state=state,
        queue=new.queue,
        priority=new.priority,
        overrides=new.overrides,
        retention=new.retention,
        origin=new.origin,
        after=new.after,
        expires_at=None if new.expires is None else now + new.expires,
        unique_key=new.unique_key,
        idempotency_key=new.idempotency_key,
        limit_key=new.limit_key,
        rerun_after_crash=new.rerun_after_crash,
        context=new.context,
        secrets=new.secrets,
        attempt=1 if leased else 0,
        run_at=due,
        worker=leased.worker if leased else None,
        lease_until=_so_long_after(now, leased.lease) if leased else None,
        started_at=now if leased else None,
    )
    task = frozen(draft, Task)
    if new.failure:
        return _recorded(task, new.failure, now)
    return task if goes_on else follow(task, before, now)


def asked_for(new: NewTask, now: datetime) -> datetime:
    """Return the start that a new task asks for, apart from its predecessor: now, if it asks for no time."""
    return new.run_at or (now + new.wait if new.wait else now)


def follow(task: Task, before: Task | None, now: datetime) -> Task:
    """Return the waiting task after a change of its predecessor (None: the predecessor's record is gone)."""
    if before is None:
        return _cancelled(
            task, f"{task.after}, which comes before it, is not on record: it may not have succeeded", now
        )
    if before.state is State.SUCCEEDED:
        return proceed(task, now)
    if before.state.finished:
        how = "failed" if before.state is State.FAILED else "was cancelled"
        cancelled = _cancelled(task, f"{before.name} ({before.id}), which comes before it, {how}", now)
        return replace(cancelled, cause=before.cause or before.id)
    return task


def proceed(task: Task, now: datetime) -> Task:
    """Return the waiting task after its predecessor has succeeded."""
    return _due(task, now)


def publish(task: Task, now: datetime, start: Start = None) -> Task:
    """Return the held task after its request has ended or goes on for another span. It may have its own start time."""
    return _due(replace(task, run_at=start_at(start, now)), now)


def start_at(start: Start, now: datetime) -> datetime | None:
    """Return the instant at which a held task starts, None for at once."""
    return now + start if isinstance(start, timedelta) else start


def due(task: Task, now: datetime) -> Task:
    """Return the task, queued if it was scheduled and its time has come."""
    return _due(task, now) if task.state is State.SCHEDULED else task


def claim(task: Task, worker: str, lease: timedelta, now: datetime) -> Task:
    """Return the task leased to a worker. The attempt is counted here, before user code runs."""
    return replace(
        task,
        state=State.RUNNING,
        attempt=task.attempt + 1,
        run_at=None,
        worker=worker,
        lease_until=now + lease,
        started_at=now,
        progress=None,
    )


def finish(task: Task, settled: Settled, now: datetime) -> Task | None:
    """Return the stored task after its attempt, None if the lease is refused because it is no longer the task's."""
    if task.state is not State.RUNNING or task.attempt != settled.lease.attempt:
        return None
    if settled.lost and task.lease_until and task.lease_until > now:
        return None  # renewed after it was seen expired
    after = replace(
        history.with_logs(history.with_failure(task, settled.failure), settled.logs),
        state=settled.state,
        failed=settled.failed,
        crashed=settled.crashed,
        suspect=settled.suspect and not settled.state.finished,
        losses=0 if settled.state.finished else settled.losses,
        lease_until=None,
        reason=settled.reason,
        result=settled.result,
        progress=settled.progress or task.progress,
        cancel_requested=None,
        set_aside=settled.set_aside,
    )
    if settled.state.finished:
        return replace(after, finished_at=now)
    if task.cancel_requested is not None:  # the cancel came during a retry, a snooze or a release: it wins
        return _cancelled(after, task.cancel_requested, now)
    return _due(replace(after, run_at=now + settled.wait), now)


def start_now(task: Task, now: datetime) -> Task:
    """Return the task, queued if its time has not come yet: somebody asked for it to start now."""
    if task.state is not State.SCHEDULED or task.run_at is None or task.run_at <= now:
        return task
    return replace(task, state=State.QUEUED, run_at=None)


def bring_back(task: Task) -> Task:
    """Return a task that was set aside, so that workers may start it again."""
    return replace(task, set_aside=None)


def overdue(task: Task, now: datetime) -> bool:
    """Return True if no attempt may start any more."""
    return task.state.pending and task.expires_at is not None and task.expires_at <= now


def expire(task: Task, now: datetime) -> Task:
    """Return the task, cancelled because it did not start in time."""
    return _cancelled(task, EXPIRED, now)


def cancel(task: Task, reason: str, now: datetime) -> Task:
    """Return the task: cancelled, asked to stop if it is running, or unchanged if it has finished."""
    if task.state.finished:
        return task
    if task.state is State.RUNNING:
        return replace(task, cancel_requested=reason)
    return _cancelled(task, reason, now)


def put_right(task: Task, since: datetime | None, now: datetime, lease: timedelta) -> Task:
    """Return the task after a correction of the clock. Its waits start now.

    ``since`` is when the wait for its ``run_at`` began; it is None for a task that waits for an instant that the
    caller chose. A lease ends as if it were renewed now for the span ``lease``. A task that ended later than now ended
    now.
    """
    run_at, expires_at, lease_until = task.run_at, task.expires_at, task.lease_until
    if task.state.finished:
        return _ended_no_later(task, now)
    if task.state in (State.SCHEDULED, State.WAITING) and run_at and since and put_back(since, now):
        run_at -= since - now
    if expires_at and put_back(task.created_at, now):
        expires_at -= task.created_at - now
    if lease_until and put_back(lease_until - lease, now):
        lease_until = now + lease
    created_at = corrected(task.created_at, now)
    return replace(task, created_at=created_at, run_at=run_at, expires_at=expires_at, lease_until=lease_until)


def requeue(task: Task, now: datetime) -> Task:
    """Return a finished task so that it runs again. Its counters are zero; its failures stay recorded."""
    return replace(_fresh(task), state=State.QUEUED)


def revive(task: Task) -> Task:
    """Return a task that was cancelled because of its predecessor, which now runs again."""
    return replace(_fresh(task), state=State.WAITING)


def cancelled_for_another(task: Task) -> bool:
    """Return True if a requeue of its predecessor brings this task back."""
    return task.state is State.CANCELLED and task.cause is not None


@lru_cache(64)  # tasks stored together share their instants; engines write them faster if they are one object
def _so_long_after(now: datetime, span: timedelta) -> datetime:
    return now + span


def _recorded(task: Task, failure: Failure, now: datetime) -> Task:
    """Return the record of a plain function's failure."""
    return replace(
        task,
        state=State.FAILED,
        plain=True,
        attempt=1,
        failed=1,
        run_at=None,
        finished_at=now,
        failures=(failure,),
    )


def _ended_no_later(task: Task, now: datetime) -> Task:
    if task.finished_at is None or not put_back(task.finished_at, now):
        return task
    started_at = task.started_at and corrected(task.started_at, now)  # an attempt ends no earlier than it began
    return replace(task, created_at=corrected(task.created_at, now), started_at=started_at, finished_at=now)


def _due(task: Task, now: datetime) -> Task:
    if task.run_at is not None and task.run_at > now:
        return replace(task, state=State.SCHEDULED)
    return replace(task, state=State.QUEUED, run_at=None)


def _cancelled(task: Task, reason: str, now: datetime) -> Task:
    return replace(task, state=State.CANCELLED, finished_at=now, run_at=None, reason=reason, set_aside=None)


def _fresh(task: Task) -> Task:
    return replace(
        task,
        failed=0,
        crashed=0,
        suspect=False,
        losses=0,
        run_at=None,
        expires_at=None,  # somebody has asked for it again
        finished_at=None,
        cancel_requested=None,
        reason=None,
        cause=None,
        result=None,
        progress=None,
    )
