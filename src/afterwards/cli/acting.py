"""Commands that change many tasks: they say how many, ask, and say how many were changed."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from afterwards.cli import asking, output
from afterwards.cli.errors import CommandError, ExitCode, UsageError
from afterwards.cli.filters import Wanted, identified
from afterwards.cli.store import Store, run
from afterwards.client.steering import MOST_COUNTED, Filter, counted
from afterwards.core.task import State
from afterwards.engine import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """The change that a command makes to tasks."""

    verb: str  # as "requeue"
    done: str  # as "requeued"
    states: frozenset[State]  # of the tasks that it can change
    unless_said: frozenset[State]  # of those that a filter without a state means
    change: Callable[[Engine, Filter], Awaitable[int]]


def act(what: Act, store: Store, wanted: Wanted, *, yes: bool, as_json: bool) -> ExitCode:
    """Change the tasks that are wanted, and print how many were changed. Raises CommandError."""
    if wanted.is_empty:
        raise UsageError(
            f"nothing is named: give ids of tasks, or a filter, as `afterwards {what.verb} --state "
            f"{sorted(what.unless_said)[0]} --since 1h`"
        )
    if wanted.ids and wanted.has_filter:
        raise UsageError("ids and a filter are both given: give one of them")
    if not wanted.ids and not yes:
        asking.must_be_possible(f"whether to {what.verb} all that match")
    chosen = None if wanted.ids else wanted.filter()

    async def changed(engine: Engine) -> ExitCode:
        if chosen is None:
            return await _by_ids(engine, what, wanted, as_json=as_json)
        return await _by_filter(engine, what, chosen, yes=yes, as_json=as_json)

    return run(store, changed)


async def _by_ids(engine: Engine, what: Act, wanted: Wanted, *, as_json: bool) -> ExitCode:
    """Change the tasks with these ids. It has failed if one of them cannot be changed."""
    tasks = await identified(engine, wanted.ids or ())
    number = await what.change(engine, Filter(ids=tuple(task.id for task in tasks)))
    _told(what, number, as_json=as_json)
    left = [task for task in tasks if task.state not in what.states]
    for task in left:
        output.say(f"{task.id} ({task.name}) is {task.state}, so it was not {what.done}")
    if number < len(tasks) - len(left):
        output.say(f"{output.counted(len(tasks) - len(left) - number, 'task')} could not be {what.done}{_why(what)}")
    return ExitCode.FAILED if number < len(tasks) else ExitCode.DONE


async def _by_filter(engine: Engine, what: Act, chosen: Filter, *, yes: bool, as_json: bool) -> ExitCode:
    if chosen.states is None:
        chosen = replace(chosen, states=what.unless_said)
    states = sorted(chosen.states or ())
    if not what.states.intersection(states):
        raise UsageError(
            f"no task that is {' or '.join(states)} can be {what.done}: give --state {','.join(sorted(what.states))}"
        )
    number = await counted(engine, chosen.only(what.states))
    if number == 0:
        _told(what, 0, as_json=as_json)
        output.say(f"no task matches. `afterwards list --state {','.join(states)}` shows what there is")
        return ExitCode.DONE
    if not yes and not _agreed(what, number, chosen):
        raise CommandError(f"nothing was {what.done}")
    changed = await what.change(engine, chosen)
    _told(what, changed, as_json=as_json)
    if changed < number:
        output.say(f"{number - changed:,} of {output.counted(number, 'task')} not {what.done}{_why(what)}")
    if number == MOST_COUNTED:
        output.say(f"there may be more than {MOST_COUNTED:,}: run the same command again")
    return ExitCode.DONE


def _agreed(what: Act, number: int, chosen: Filter) -> bool:
    """Say how many tasks match, and ask."""
    states = " or ".join(sorted(chosen.states or ()))
    many = f"{number:,} or more tasks" if number == MOST_COUNTED else output.counted(number, "task")
    output.say(f"{many} ({states}) will be {what.done}.")
    return asking.agreed(f"{what.verb.capitalize()} {many}?")


def _told(what: Act, number: int, *, as_json: bool) -> None:
    if as_json:
        output.json_line({what.done: number})
    else:
        output.line(f"{output.counted(number, 'task')} {what.done}")
        output.flush()


def _why(what: Act) -> str:
    """Return the usual reasons why a task that matched was left unchanged."""
    if what.verb == "requeue":
        return (
            ": records of plain functions cannot run again, nor can a task whose unique key another one has meanwhile"
        )
    return ": they have changed meanwhile"
