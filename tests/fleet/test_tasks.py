"""The things that tasks can do when a Celery fleet runs them: all that they can do in a web process."""

from datetime import datetime, timedelta

import pytest

from fleet.harness import Fleet

FORGED = "names no attempt of a task"


@pytest.mark.parametrize("function", ["note", "note_in_thread"])
def test_a_task_runs_in_the_fleet(shared_fleet: Fleet, function: str) -> None:
    text = f"runs-{function}"
    record = shared_fleet.succeeded(shared_fleet.add(function, text))
    pid = shared_fleet.wrote(rf"{text} in (\d+)")[1]
    assert (record["result"], record["attempt"]) == (text, 1)
    assert f"{pid} begins" in shared_fleet.diary()  # the application's lifespan


def test_a_task_is_tried_again_after_a_failure(shared_fleet: Fleet) -> None:
    record = shared_fleet.succeeded(shared_fleet.add("second_try", "twice"))
    assert (record["attempt"], [failure["kind"] for failure in record["failures"]]) == (2, ["raised"])


def test_a_failure_is_recorded_with_its_traceback(shared_fleet: Fleet) -> None:
    record = shared_fleet.finished(shared_fleet.add("fail", "no luck"))
    [failure] = record["failures"]
    assert (record["state"], failure["message"]) == ("failed", "no luck")
    assert "in fail" in failure["traceback"]


def test_a_task_times_out(shared_fleet: Fleet) -> None:
    record = shared_fleet.finished(shared_fleet.add("too_long"))
    assert (record["state"], [failure["kind"] for failure in record["failures"]]) == ("failed", ["timed_out"])


def test_a_running_task_is_cancelled(shared_fleet: Fleet) -> None:
    id = shared_fleet.add("gated", "cancelled-gate")
    shared_fleet.wrote(r"cancelled-gate began in \d+")
    assert shared_fleet.http.post(f"/cancel/{id}").json()["cancel_requested"]
    assert shared_fleet.finished(id)["state"] == "cancelled"


def test_the_tasks_of_a_request_run_in_order(shared_fleet: Fleet) -> None:
    texts = [f"chained-{number}" for number in range(6)]
    ids = shared_fleet.add_all(*(("note", text) for text in texts))
    shared_fleet.succeeded(ids[-1])
    ran = [line.split()[0] for line in shared_fleet.diary() if line.startswith("chained-")]
    assert ran == texts


def test_those_behind_a_failed_task_are_cancelled(shared_fleet: Fleet) -> None:
    failed, behind = shared_fleet.add_all(("fail", "first"), ("note", "never-runs"))
    record = shared_fleet.finished(behind)
    assert (record["state"], record["cause"]) == ("cancelled", failed)


def test_a_limit_holds_in_all_processes(shared_fleet: Fleet) -> None:
    texts = [f"limited-{number}" for number in range(4)]
    ids = shared_fleet.add_all(*(("one_at_a_time", text) for text in texts), ordered=False)
    for id in ids:
        shared_fleet.succeeded(id)
    lines = [line for line in shared_fleet.diary() if line.startswith("limited-")]
    assert [line.split()[1] for line in lines] == ["began", "ended"] * 4


def test_progress_is_seen_while_a_task_runs(shared_fleet: Fleet) -> None:
    id = shared_fleet.add("with_progress", "progress-gate")
    shared_fleet.eventually(lambda: (shared_fleet.record(id)["progress"] or {}).get("done") == 3, "progress")
    shared_fleet.open("progress-gate")
    shared_fleet.succeeded(id)


def test_an_uploaded_file_reaches_the_fleet(shared_fleet: Fleet) -> None:
    answer = shared_fleet.http.post("/file", files={"file": ("letter.txt", b"dear fleet")})
    assert shared_fleet.succeeded(answer.json())["result"] == "letter.txt: dear fleet"


def test_dependencies_are_resolved_in_the_fleet(shared_fleet: Fleet) -> None:
    assert shared_fleet.succeeded(shared_fleet.add("with_session", "text"))["result"] == "text with a session"
    shared_fleet.wrote("session closed")


def test_a_delayed_task_runs_when_it_is_due(shared_fleet: Fleet) -> None:
    record = shared_fleet.succeeded(shared_fleet.add("note", "delayed", delay=1))
    created, started = (datetime.fromisoformat(record[name]) for name in ("created_at", "started_at"))
    assert started - created >= timedelta(seconds=1)


def test_schedules_fire(shared_fleet: Fleet) -> None:
    before = shared_fleet.times("tick")
    shared_fleet.eventually(lambda: shared_fleet.times("tick") > before + 1, "two more ticks")


def test_a_worker_without_q_serves_the_queues_of_all_task_functions(shared_fleet: Fleet) -> None:
    assert shared_fleet.succeeded(shared_fleet.add("note_elsewhere", "elsewhere"))["queue"].endswith("-other")


def test_a_doubled_message_starts_nothing(shared_fleet: Fleet) -> None:
    id = shared_fleet.add("gated", "doubled-gate")
    shared_fleet.wrote(r"doubled-gate began in \d+")
    for _ in range(5):
        shared_fleet.send_by_hand(id, 1)
    shared_fleet.eventually(lambda: shared_fleet.waiting() == 0, "the doubled messages to be taken")
    shared_fleet.open("doubled-gate")
    assert shared_fleet.succeeded(id)["attempt"] == 1
    assert shared_fleet.times(r"doubled-gate began in \d+") == 1


def test_a_late_message_starts_nothing(shared_fleet: Fleet) -> None:
    id = shared_fleet.add("note", "late")
    shared_fleet.succeeded(id)
    shared_fleet.send_by_hand(id, 1)
    shared_fleet.send_by_hand(id, 2)
    shared_fleet.succeeded(shared_fleet.add("note", "after the late one"))
    shared_fleet.eventually(lambda: shared_fleet.waiting() == 0, "the late messages to be taken")
    assert (shared_fleet.record(id)["attempt"], shared_fleet.times(r"late in \d+")) == (1, 1)


def test_a_message_may_not_start_another_attempt(shared_fleet: Fleet) -> None:
    id = shared_fleet.add("note", "not yet due", delay=3600)
    shared_fleet.send_by_hand(id, 1)  # it is scheduled
    shared_fleet.send_by_hand(id, 7)
    shared_fleet.eventually(lambda: shared_fleet.waiting() == 0, "the messages to be taken")
    shared_fleet.succeeded(shared_fleet.add("note", "behind it"))
    assert (shared_fleet.record(id)["attempt"], shared_fleet.times(r"not yet due in \d+")) == (0, 0)


@pytest.mark.parametrize(
    "arguments",
    [(), ("x",), ("x", 1), (1, 2), (None, None), ("\0", 1), (["a"], {"b": 1}), ("x" * 300_000, 1), ("x", True)],
    ids=["none", "one", "no id", "a number", "nulls", "nul", "others", "huge", "boolean"],
)
def test_forged_messages_are_ignored(shared_fleet: Fleet, arguments: tuple[object, ...]) -> None:
    told = _said(shared_fleet).count(FORGED)
    shared_fleet.send_by_hand(*arguments)
    shared_fleet.send_by_hand("01a2238c-78fc-7235-a4fb-3c55a3505a51", 1)  # of no task
    shared_fleet.send_by_hand("01a2238c-78fc-7235-a4fb-3c55a3505a51", 2**80)
    shared_fleet.send_by_hand("01a2238c-78fc-7235-a4fb-3c55a3505a51", 1, surprise=1)
    shared_fleet.succeeded(shared_fleet.add("note", "after the forged ones"))
    shared_fleet.eventually(lambda: shared_fleet.waiting() == 0, "the forged messages to be taken")
    assert "raised unexpected" not in _said(shared_fleet)
    assert _said(shared_fleet).count(FORGED) - told <= 2  # once a minute for each process


def _said(fleet: Fleet) -> str:
    """Return all that the processes have written."""
    return "".join(file.read_text() for file in fleet.folder.glob("output-*.txt"))
