"""The page that asks before tasks are changed, and states their number."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from fastapi import HTTPException

from afterwards.client.steering import MOST_COUNTED, Filter, counted, listed
from afterwards.core.record import TaskRecord
from afterwards.dashboard.filters import MOST_IDS
from afterwards.dashboard.pages.acts import ACTS, ActWords
from afterwards.dashboard.pages.questions import Question, id_of
from afterwards.engine import Engine

MOST_NAMED = 10
"""Tasks that the page names, so that people see what they are about to change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmPage:
    """The values for the template."""

    act: ActWords
    count: int  # tasks that the act applies to now
    most: int  # counting ended here
    question: Question
    ids: Sequence[str]  # empty: all that the question names
    examples: list[TaskRecord]
    back: str | None  # the task from whose page somebody came


async def confirm_page(
    engine: Engine, now: datetime, act: ActWords, question: Question, ids: Sequence[str], back: str | None
) -> ConfirmPage:
    """Read the page: two calls of the engine."""
    wanted = wanted_by(question, ids, now).only(act.states)
    return ConfirmPage(
        act=act,
        count=await counted(engine, wanted),
        most=MOST_COUNTED,
        question=question,
        ids=ids,
        examples=[
            TaskRecord.of(task, shown=True)
            for task in (await listed(engine, wanted, limit=MOST_NAMED)).tasks[:MOST_NAMED]
        ],
        back=back,
    )


def act_of(name: str) -> ActWords:
    """Return an act by its name in a form. Raises HTTPException."""
    if name not in ACTS:
        raise HTTPException(422, f"There is no act “{name}”. The acts are {', '.join(ACTS)}.")
    return ACTS[name]


def ids_of(given: Iterable[str]) -> list[str]:
    """Return the ids of a form, once each. Raises HTTPException if it selects nothing, or too much for one form."""
    ids = list(dict.fromkeys(id for one in given if (id := id_of(one)) is not None))
    if not ids:
        raise HTTPException(422, "No task is selected. Select some, or all that match.")
    if len(ids) > MOST_IDS:
        raise HTTPException(
            422, f"{len(ids)} tasks are selected, and one form takes {MOST_IDS}: narrow the list instead."
        )
    return ids


def wanted_by(question: Question, ids: Sequence[str], now: datetime) -> Filter:
    """Return the filter for selected tasks, or for all that a question names if none is selected."""
    wanted = question.filter(now)
    return replace(wanted, ids=tuple(ids), states=None) if ids else wanted
