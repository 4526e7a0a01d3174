"""The differences that we want: what else is observed than with FastAPI's class, and which line decides that.

The lines are those of section 1 of the design, "What it promises": 1.1 to 1.10, or a row of its table. A difference
that does not occur, or occurs in another way, makes its test fail as one does that is not listed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from differential.kit import Variant
from differential.observation import Observation

INSTALLED = (Variant.PLAIN, Variant.DURABLE, Variant.UNCHANGED)
DURABLE = (Variant.DURABLE, Variant.UNCHANGED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """What a situation comes to under some variants, where that is not what it comes to under stock."""

    situation: str
    variants: Sequence[Variant] = DURABLE
    decided_by: str
    changes: Mapping[str, Any]  # fields of the observation; all others are as under stock
    newer_versions_do_so: bool = False  # of FastAPI or Starlette: then there is no difference left


def expected(situation: str, variant: Variant, stock: Observation) -> Observation:
    """What must be observed, given what was observed under stock."""
    allowed = ALLOWED.get((situation, variant))
    return replace(stock, **allowed.changes) if allowed else stock


def _events(*events: str) -> dict[str, Any]:
    return {"events": list(events)}


def _warned() -> dict[str, Any]:
    return {"complaints": ["WARNING of afterwards"]}


def _answered(asked: str, status: int, content_type: str, body: str) -> dict[str, Any]:
    headers = {"content-length": str(len(body)), "content-type": content_type}
    return {"answers": [{"asked": asked, "status": status, "headers": headers, "body": body}]}


def _refused_when_added() -> dict[str, Any]:
    """The handler fails at `add_task`, so that nobody believes that something was accepted."""
    return {
        **_answered("POST /", 500, "text/plain; charset=utf-8", "Internal Server Error"),
        **_events("handler", "POST /: 500", "POST /: sent"),
        "complaints": ["ERROR: an error of afterwards"],
    }


_ENTRIES = [
    # What a function is given.
    Allowed(
        situation="missing_argument",
        decided_by="table, arguments: checked at `add_task`",
        changes=_refused_when_added(),
    ),
    Allowed(
        situation="argument_of_another_type",
        decided_by="table, arguments: checked at `add_task`",
        changes=_refused_when_added(),
    ),
    Allowed(
        situation="live_object_as_an_argument",
        decided_by="table, arguments: what the signature's types can write as JSON",
        changes=_refused_when_added(),
    ),
    Allowed(
        situation="what_add_task_returns",
        decided_by="table, add_task: returns a `TaskHandle`",
        changes=_answered("POST /", 200, "application/json", '{"returned":"TaskHandle"}'),
    ),
    Allowed(
        situation="context_variables",
        decided_by="table, runs: in this process, a worker process, another server",
        changes=_events(
            "POST /: 200",
            "POST /: sent",
            "letter: signed by nobody",
            "letter: done",
            "POST /thread: 200",
            "POST /thread: sent",
            "letter from a thread: signed by nobody",
            "letter from a thread: done",
        ),
    ),
    # What a request mixes.
    Allowed(
        situation="plain_and_task_functions_in_one_request",
        decided_by="1.1: plain tasks run first; a request that mixes them warns once",
        changes={
            **_events(
                "POST /: 200",
                "POST /: sent",
                "async note 2: starts",
                "async note 2: ends",
                "async note 4: starts",
                "async note 4: ends",
                "note 1: starts",
                "note 1: ends",
                "note 3: starts",
                "note 3: ends",
            ),
            **_warned(),
        },
    ),
    # Tasks run when their request has ended, which is when everything around the handler has been left.
    Allowed(
        situation="object_called_by_hand",
        variants=(Variant.DURABLE,),
        decided_by="table, runs: never before its request has ended",
        changes=_events(
            "handler",
            "POST /: 200",
            "POST /: sent",
            "note by hand: starts",
            "note by hand: ends",
        ),
    ),
    Allowed(
        situation="behind_asgi_middleware",
        decided_by="1.2: published when the request has ended",
        changes=_events(
            "bracket opens",
            "handler",
            "POST /: 200",
            "POST /: sent",
            "bracket closes",
            "note inside: starts",
            "note inside: ends",
        ),
    ),
    Allowed(
        situation="begins_behind_http_middleware",
        decided_by="1.2: after the response was sent",
        changes=_events(
            "POST /: 200",
            "POST /: sent",
            "async note behind: starts",
            "async note behind: ends",
        ),
        newer_versions_do_so=True,
    ),
    Allowed(
        situation="request_scoped_session",
        decided_by="1.2: after request-scoped dependencies have closed",
        changes=_events(
            "session: opened",
            "handler",
            "POST /: 200",
            "POST /: sent",
            "session: closed",
            "async note with session: starts",
            "async note with session: ends",
            "session in a thread: opened",
            "handler in a thread",
            "POST /thread: 200",
            "POST /thread: sent",
            "session in a thread: closed",
            "async note with session in a thread: starts",
            "async note with session in a thread: ends",
        ),
    ),
    Allowed(
        situation="nested_sessions",
        decided_by="1.2: after request-scoped dependencies have closed",
        changes=_events(
            "POST /: 200",
            "POST /: sent",
            "repository: closed",
            "transaction: closed",
            "connection: closed",
            "note repository in transaction on connection: starts",
            "note repository in transaction on connection: ends",
        ),
    ),
    Allowed(
        situation="session_that_adds_a_task_when_it_opens",
        decided_by="1.2: after request-scoped dependencies have closed",
        changes=_events(
            "POST /: 200",
            "POST /: sent",
            "audited: closed",
            "note opened: starts",
            "note opened: ends",
            "note from the handler: starts",
            "note from the handler: ends",
        ),
    ),
    Allowed(
        situation="session_of_a_stream",
        decided_by="1.2: after request-scoped dependencies have closed",
        changes=_events(
            "session: opened",
            "GET /: 200",
            "stream: begins",
            "stream: ends",
            "GET /: sent",
            "session: closed",
            "async note after the stream: starts",
            "async note after the stream: ends",
        ),
    ),
    Allowed(
        situation="what_the_request_commits",
        decided_by="1.2: a task sees what its request committed",
        changes=_events(
            "POST /orders/tea: 200",
            "POST /orders/tea: sent",
            "tea: committed",
            "tea: the task sees it",
            "tea: looked",
            "coffee: committed",
            "POST /orders/coffee/function-scoped: 200",
            "POST /orders/coffee/function-scoped: sent",
            "coffee: the task sees it",
            "coffee: looked",
        ),
    ),
    Allowed(
        situation="commit_that_takes_its_time",
        decided_by="1.2: after request-scoped dependencies (a session's commit!) have closed",
        changes=_events(
            "POST /slow: 200",
            "POST /slow: sent",
            "session: commits",
            "POST /quick: 200",
            "POST /quick: sent",
            "note quick: starts",
            "note quick: ends",
            "session: has committed",
            "note slow: starts",
            "note slow: ends",
        ),
    ),
    Allowed(
        situation="task_fails_while_a_session_is_open",
        decided_by="1.2: after request-scoped dependencies have closed",
        changes=_events(
            "POST /: 200",
            "POST /: sent",
            "session: committed",
            "failing note with a session: starts",
        ),
    ),
    Allowed(
        situation="commit_fails_after_the_response",
        decided_by="1.2: when `await app()` returns or raises",
        changes=_events(
            "POST /: 200",
            "POST /: sent",
            "session: commit",
            "note of a request whose commit failed: starts",
            "note of a request whose commit failed: ends",
        ),
    ),
    Allowed(
        situation="broken_stream",
        decided_by="1.2: stored before the response begins, published when `await app()` returns or raises",
        changes=_events(
            "GET /: 200",
            "note of a broken stream: starts",
            "note of a broken stream: ends",
        ),
    ),
    # What FastAPI drops in silence, we run.
    Allowed(
        situation="own_response_with_own_task",
        variants=INSTALLED,
        decided_by="1.6: the returned `Response` carries its own `background`",
        changes=_events(
            "POST /: 200",
            "POST /: sent",
            "async note of the response: starts",
            "async note of the response: ends",
            "note injected: starts",
            "note injected: ends",
        ),
    ),
    Allowed(
        situation="own_response_with_own_tasks",
        variants=(Variant.PLAIN, Variant.DURABLE),
        decided_by="1.6: the returned `Response` carries its own `background`",
        changes=_events(
            "POST /: 200",
            "POST /: sent",
            "note of the response: starts",
            "note of the response: ends",
            "note injected: starts",
            "note injected: ends",
        ),
    ),
    Allowed(
        situation="own_response_with_own_tasks",
        variants=(Variant.UNCHANGED,),
        decided_by="1.6: the returned `Response` carries its own `background`, which nobody adopted",
        changes={
            **_events(
                "POST /: 200",
                "POST /: sent",
                "note of the response: starts",
                "note of the response: ends",
                "note injected: starts",
                "note injected: ends",
            ),
            **_warned(),
        },
    ),
    Allowed(
        situation="in_a_websocket_handler",
        variants=INSTALLED,
        decided_by="1.6: websocket handlers",
        changes=_events(
            "handler: done",
            "note welcome ada: starts",
            "note welcome ada: ends",
            "note welcome bob: starts",
            "note welcome bob: ends",
        ),
    ),
    Allowed(
        situation="in_a_dependency_of_a_websocket_handler",
        variants=INSTALLED,
        decided_by="1.6: websocket handlers",
        changes=_events(
            "handler: done",
            "note a session was opened: starts",
            "note a session was opened: ends",
        ),
    ),
    Allowed(
        situation="session_that_adds_a_task_when_it_closes",
        variants=INSTALLED,
        decided_by="1.6: tasks added after the response started (dependency exits)",
        changes=_events(
            "POST /: 200",
            "POST /: sent",
            "audited: closes",
            "note closed: starts",
            "note closed: ends",
        ),
    ),
    # Task functions in an object that FastAPI did not inject run there, not stored, and we say so.
    *(
        Allowed(
            situation=situation,
            decided_by="1.6: a task function in an object that was not adopted is detected",
            changes=_warned(),
        )
        for situation in (
            "fastapis_object_made_by_hand",
            "single_async_task_of_starlette",
            "single_task_of_starlette",
        )
    ),
    Allowed(
        situation="handler_raises_what_is_a_server_error",
        variants=(Variant.UNCHANGED,),
        decided_by="1.6: a task function in an object that was not adopted is detected",
        changes={"complaints": ["WARNING of afterwards", "on purpose: not handled"]},
    ),
    *(
        Allowed(
            situation=situation,
            variants=(Variant.UNCHANGED,),
            decided_by="1.6: a task function in an object that was not adopted is detected",
            changes=_warned(),
        )
        for situation in (
            "handler_raises_what_the_application_handles",
            "list_given_to_the_constructor",
            "object_called_by_hand",
            "object_made_by_hand",
            "object_made_by_hand_in_a_route_of_starlette",
            "set_by_middleware",
            "subclass_made_by_hand",
        )
    ),
    # Without an installation FastAPI injects its own object.
    Allowed(
        situation="classes_of_the_object",
        variants=(Variant.BARE,),
        decided_by="1.5: with `Afterwards(app)` the object that FastAPI injects is ours",
        changes=_answered(
            "GET /",
            200,
            "application/json",
            '{"Starlette\'s task":[true,true,true],"Starlette\'s":[true,true,true],"FastAPI\'s":[true,true,true],'
            '"the imported":[false,true,true],"others":[false,false]}',
        ),
    ),
]
ALLOWED = {(entry.situation, variant): entry for entry in _ENTRIES for variant in entry.variants}
