"""Decides from what is left after the kills whether every promise was kept. Pure: evidence in, violations out."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from itertools import pairwise

from afterwards import State
from afterwards.core.settling import MOST_CRASHES
from afterwards.core.task import FailureKind, Task
from chaos.history import Effect, Sent, What

ON_PURPOSE = "on purpose"
"""How the message of every exception begins that the functions raise."""

Position = tuple[int, int]
"""A request's number, and the position of the task in it: what the client asked for, whatever id it was given."""


class Rule(StrEnum):
    """What was broken."""

    LOST = "lost"  # promised, and not there or never run
    UNFINISHED = "unfinished"  # there is nobody left who would finish it
    DOUBLED = "doubled"  # two records of one call, or two runs of one attempt
    TORN = "torn"  # of a request's tasks, some are stored and some are not
    MISRECORDED = "misrecorded"  # the record tells another story than the functions
    UNORDERED = "unordered"  # a task began before the one before it had succeeded
    OVERLAPPING = "overlapping"  # two attempts of one task at the same time
    CORRUPT = "corrupt"  # the file
    BROKEN = "broken"  # the library complained of itself
    LATE = "late"  # an answer, or the return to work after a trouble
    REFUSED = "refused"  # a request had another answer than 200 or 503 with a time to try again


@dataclass(frozen=True, slots=True)
class Violation:
    rule: Rule
    about: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.about}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """A trouble after whose end work went on."""

    after: str
    seconds: float
    at_most: float


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What clients were told, what functions did, what the engine has on record."""

    sent: Sequence[Sent]
    effects: Sequence[Effect]
    records: Sequence[Task]
    calls: Mapping[str, Position]  # by the id of a record
    aliases: Mapping[str, str] = field(default_factory=dict)  # the record that stands for a repeated call, by its id
    answers_are_lost: bool = False  # between engine and store: what was leased then is given back without a trace
    recoveries: Sequence[Recovery] = ()
    longest_answer: float | None = None  # seconds within which clients have their answers
    integrity: str = "ok"
    complaints: Sequence[str] = ()  # lines of the log that the library only writes when it is at fault itself
    fail_on_purpose: frozenset[str] = field(default_factory=frozenset)  # the names of functions that never succeed

    @cached_property
    def by_id(self) -> Mapping[str, Task]:
        return {record.id: record for record in self.records}

    def record(self, id: str) -> Task | None:
        """The record that an acknowledged id stands for."""
        return self.by_id.get(self.aliases.get(id, id))

    @cached_property
    def by_task(self) -> Mapping[str, list[Effect]]:
        """The effects of each task, in the order in which they happened."""
        found: dict[str, list[Effect]] = defaultdict(list)
        for effect in sorted(self.effects, key=lambda effect: effect.at):
            found[effect.task].append(effect)
        return found

    def of(self, id: str, what: What) -> list[Effect]:
        return [effect for effect in self.by_task.get(id, ()) if effect.what is what]


def check(evidence: Evidence) -> list[Violation]:
    """Every broken promise."""
    return [violation for rule in RULES for violation in rule(evidence)]


def promised_tasks_are_there(evidence: Evidence) -> Iterator[Violation]:
    for sent in evidence.sent:
        for id in sent.ids or ():
            if evidence.record(id) is None:
                yield Violation(Rule.LOST, f"task {id} of request {sent.number} was acknowledged and has no record")


def stored_tasks_have_run(evidence: Evidence) -> Iterator[Violation]:
    for record in evidence.records:
        if record.state is not State.CANCELLED and not evidence.of(record.id, What.START):
            yield Violation(Rule.LOST, f"{_shown(record)} never ran")


def every_task_has_finished(evidence: Evidence) -> Iterator[Violation]:
    for record in evidence.records:
        if not record.state.finished:
            yield Violation(Rule.UNFINISHED, _shown(record))


def each_call_is_recorded_once(evidence: Evidence) -> Iterator[Violation]:
    for id, times in Counter(record.id for record in evidence.records).items():
        if times > 1:
            yield Violation(Rule.DOUBLED, f"{times} records have the id {id}")
    for call, times in Counter(evidence.calls[id] for id in evidence.by_id).items():
        if times > 1:
            yield Violation(Rule.DOUBLED, f"{times} records of the call {call}")


def each_attempt_ran_once(evidence: Evidence) -> Iterator[Violation]:
    runs = Counter((effect.task, effect.attempt, effect.what) for effect in evidence.effects)
    for (task, attempt, what), times in runs.items():
        if times > 1:
            yield Violation(Rule.DOUBLED, f"attempt {attempt} of task {task} has {times} {what}s")


def a_request_is_stored_whole_or_not_at_all(evidence: Evidence) -> Iterator[Violation]:
    stored = Counter(number for number, _ in evidence.calls.values())
    for sent in evidence.sent:
        if stored[sent.number] not in (0, sent.length):
            about = f"request {sent.number} has {stored[sent.number]} of its {sent.length} tasks"
            yield Violation(Rule.TORN, about)


def an_acknowledged_call_is_its_record(evidence: Evidence) -> Iterator[Violation]:
    """What stands for a call is the record of that very call, also when a key brought another request's task."""
    for sent in evidence.sent:
        for position, id in enumerate(sent.ids or ()):
            record = evidence.record(id)
            if record is not None and evidence.calls[record.id] != (sent.number, position):
                about = (
                    f"{_shown(record)} stands for call {(sent.number, position)}, and is {evidence.calls[record.id]}"
                )
                yield Violation(Rule.MISRECORDED, about)


def effects_have_a_record(evidence: Evidence) -> Iterator[Violation]:
    for id in evidence.by_task:
        if id not in evidence.by_id:
            yield Violation(Rule.LOST, f"task {id} ran and has no record")


def each_attempt_is_recorded_once(evidence: Evidence) -> Iterator[Violation]:
    """Failures count up; the last attempt is the one that decided; what began is on record."""
    for record in evidence.records:
        crashed = {failure.attempt for failure in record.failures if failure.kind is FailureKind.CRASHED}
        late = [failure.attempt for failure in record.failures if failure.kind is FailureKind.LATE]
        if not crashed.issuperset(late) or len({*late}) < len(late):
            yield Violation(Rule.MISRECORDED, f"{_shown(record)} ended late in {late}, and crashed in {crashed}")
        attempts = [failure.attempt for failure in record.failures if failure.kind is not FailureKind.LATE]
        if record.state is State.SUCCEEDED:
            attempts.append(record.attempt)
        if attempts != sorted(set(attempts)):
            yield Violation(Rule.MISRECORDED, f"{_shown(record)} has the attempts {attempts}")
        begun = {effect.attempt for effect in evidence.by_task.get(record.id, ())}
        if not begun <= set(attempts):
            yield Violation(Rule.MISRECORDED, f"{_shown(record)} ran as {begun}, recorded are {attempts}")
        if record.attempt and not evidence.answers_are_lost and attempts != list(range(1, record.attempt + 1)):
            yield Violation(Rule.MISRECORDED, f"{_shown(record)} has the attempts {attempts}, not each up to the last")
        if record.attempt and attempts[-1:] != [record.attempt]:
            yield Violation(
                Rule.MISRECORDED, f"{_shown(record)} has the attempts {attempts}, and ended in none of them"
            )


def ends_are_what_happened(evidence: Evidence) -> Iterator[Violation]:
    for record in evidence.records:
        if trouble := _wrong_end(record, evidence):
            yield Violation(Rule.MISRECORDED, f"{_shown(record)} {trouble}")


def results_are_of_the_last_attempt(evidence: Evidence) -> Iterator[Violation]:
    """Each function returns the number of its attempt, so a late worker's result would show."""
    for record in evidence.records:
        if record.state is State.SUCCEEDED and record.result != str(record.attempt):
            yield Violation(Rule.MISRECORDED, f"{_shown(record)} has the result {record.result}")


def failures_are_on_purpose(evidence: Evidence) -> Iterator[Violation]:
    """No trouble of the store or the network reaches a task's function, or counts as its failure."""
    for record in evidence.records:
        for failure in record.failures:
            purpose = failure.kind is FailureKind.RAISED and failure.message.startswith(ON_PURPOSE)
            if not purpose and failure.kind not in (FailureKind.CRASHED, FailureKind.RELEASED, FailureKind.LATE):
                yield Violation(Rule.MISRECORDED, f"{_shown(record)} failed: {failure.kind}, {failure.message}")


def attempts_do_not_overlap(evidence: Evidence) -> Iterator[Violation]:
    """Whoever took a task over was right that the one before was dead."""
    for id, effects in evidence.by_task.items():
        for one, next_one in pairwise(effects):
            if next_one.attempt < one.attempt:
                about = f"attempt {next_one.attempt} of task {id} went on when attempt {one.attempt} had begun"
                yield Violation(Rule.OVERLAPPING, about)


def requests_are_chains(evidence: Evidence) -> Iterator[Violation]:
    for sent in evidence.sent:
        known = [record for id in sent.ids or () if (record := evidence.record(id))]
        before: str | None = None
        for record in known:
            if record.after != before:
                yield Violation(
                    Rule.UNORDERED, f"{_shown(record)} is stored behind {record.after}, not behind {before}"
                )
            before = record.id if sent.ordered else None


def chains_run_in_order(evidence: Evidence) -> Iterator[Violation]:
    for record in evidence.records:
        begun = evidence.of(record.id, What.START)
        before = evidence.by_id.get(record.after or "")
        if not begun or before is None:
            continue
        ended = [one.at for one in evidence.of(before.id, What.END) if one.attempt == before.attempt]
        if before.state is not State.SUCCEEDED or not ended or ended[0] > begun[0].at:
            yield Violation(Rule.UNORDERED, f"{_shown(record)} began before {_shown(before)} had succeeded")
        if any(one.at > begun[0].at for one in evidence.of(before.id, What.START)):
            yield Violation(Rule.UNORDERED, f"{_shown(before)} ran again after {_shown(record)} had begun")


def the_file_is_whole(evidence: Evidence) -> Iterator[Violation]:
    if evidence.integrity != "ok":
        yield Violation(Rule.CORRUPT, evidence.integrity)


def requests_are_served_or_refused(evidence: Evidence) -> Iterator[Violation]:
    for sent in evidence.sent:
        if sent.status not in (None, 200) and not (sent.status == 503 and sent.retry_after):
            again = "with" if sent.retry_after else "without"
            yield Violation(Rule.REFUSED, f"request {sent.number} was answered {sent.status} {again} Retry-After")


def answers_are_in_time(evidence: Evidence) -> Iterator[Violation]:
    for sent in evidence.sent:
        if evidence.longest_answer is not None and sent.seconds > evidence.longest_answer:
            yield Violation(
                Rule.LATE, f"request {sent.number} waited {sent.seconds:.1f} s for its answer: {sent.status}"
            )


def work_goes_on_in_time(evidence: Evidence) -> Iterator[Violation]:
    for one in evidence.recoveries:
        if one.seconds > one.at_most:
            yield Violation(Rule.LATE, f"work went on {one.seconds:.1f} s after: {one.after}")


def nobody_complained(evidence: Evidence) -> Iterator[Violation]:
    for complaint in evidence.complaints:
        yield Violation(Rule.BROKEN, complaint)


RULES = (
    promised_tasks_are_there,
    stored_tasks_have_run,
    every_task_has_finished,
    each_call_is_recorded_once,
    each_attempt_ran_once,
    a_request_is_stored_whole_or_not_at_all,
    an_acknowledged_call_is_its_record,
    effects_have_a_record,
    each_attempt_is_recorded_once,
    ends_are_what_happened,
    results_are_of_the_last_attempt,
    failures_are_on_purpose,
    attempts_do_not_overlap,
    requests_are_chains,
    chains_run_in_order,
    requests_are_served_or_refused,
    answers_are_in_time,
    work_goes_on_in_time,
    the_file_is_whole,
    nobody_complained,
)


def given_up(records: Sequence[Task]) -> list[Task]:
    """Those that failed because their process died three times while they ran alone: innocent here, but as promised."""
    return [record for record in records if record.state is State.FAILED and record.crashed >= MOST_CRASHES]


def _wrong_end(record: Task, evidence: Evidence) -> str | None:
    ended = {effect.attempt for effect in evidence.of(record.id, What.END)}
    raised = {failure.attempt for failure in record.failures if failure.kind is FailureKind.RAISED}
    if ended & raised:
        return f"is said to have raised in the attempts {ended & raised}, which reached their end"
    match record.state:
        case State.SUCCEEDED if record.name in evidence.fail_on_purpose:
            return "cannot have succeeded"
        case State.SUCCEEDED if record.attempt not in ended:
            return "did not reach its end in its last attempt"
        case State.FAILED if record.name not in evidence.fail_on_purpose and not given_up([record]):
            return f"had no reason to fail: {[failure.message for failure in record.failures]}"
        case State.CANCELLED:
            cause = evidence.by_id.get(record.cause or "")
            if cause is None or cause.state is not State.FAILED:
                return f"was cancelled without a cause: {record.reason}"
            if record.id in evidence.by_task:
                return "was cancelled and has run"
    return None


def _shown(record: Task) -> str:
    return f"{record.name} ({record.id}, {record.state}, attempt {record.attempt})"
