"""``tasks.router(owner=...)``: users see their own tasks, and nothing of others'."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request

from afterwards import Afterwards, BackgroundTasks, InvalidOption, TaskRecord
from face.serving import serving, until_async
from owners.shop import (
    ADA,
    EVE,
    FUNCTIONS,
    NOBODY,
    SECRET,
    STEPS,
    Report,
    User,
    a_shop,
    added,
    be_refused,
    count,
    gate,
    make_report,
    owns,
)

pytestmark = [pytest.mark.anyio, pytest.mark.afterwards(real=True)]


@asynccontextmanager
async def a_server(url: str, *functions: Any, owner: Any = owns, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    app, tasks = a_shop(url)
    app.include_router(tasks.router(*functions, owner=owner, **options), prefix="/tasks")
    async with serving(app) as http:
        yield http


async def finished(http: httpx.AsyncClient, id: str, user: dict[str, str] = ADA) -> dict[str, Any]:
    """The status of a task once it has finished."""

    async def look() -> dict[str, Any] | None:
        found: dict[str, Any] = (await http.get(f"/tasks/{id}", headers=user)).json()
        return found if found["finished_at"] else None

    return dict(await until_async(look))


async def test_an_owner_sees_status_and_result(url: str) -> None:
    async with a_server(url, make_report) as http:
        id = await added(http, "make_report")
        running = await until_async(lambda: _running(http, id))
        assert (running["name"], running["attempt"], running["error"]) == ("make_report", 1, None)
        unfinished = await http.get(f"/tasks/{id}/result", headers=ADA)
        assert (unfinished.status_code, unfinished.headers["retry-after"]) == (202, "1")
        assert unfinished.json()["state"] == "running"
        for _ in range(STEPS):
            gate("ada").open.release()
        assert (await finished(http, id))["state"] == "succeeded"
        result = await http.get(f"/tasks/{id}/result", headers=ADA)
        assert (result.status_code, result.json()) == (200, {"title": "of ada", "pages": STEPS})
        assert result.headers["cache-control"] == "no-store"


async def _running(http: httpx.AsyncClient, id: str) -> Any:
    found = (await http.get(f"/tasks/{id}", headers=ADA)).json()
    return found if found["state"] == "running" else None


PATHS = [("GET", ""), ("GET", "/result"), ("GET", "/events"), ("POST", "/cancel")]


async def test_refused_and_unknown_ids_are_answered_alike(url: str) -> None:
    async with a_server(url) as http:
        id = await added(http, "count", EVE)
        await finished(http, id, EVE)
        for method, path in PATHS:
            answers = [
                await http.request(method, f"/tasks/{one}{path}", headers=ADA)
                for one in (id, NOBODY, "no-id-at-all", NOBODY.upper(), "%00", "x" * 5000)
            ]
            assert {(one.status_code, one.text) for one in answers} == {(404, '{"detail":"Not Found"}')}


async def test_who_is_not_signed_in_learns_nothing(url: str) -> None:
    async with a_server(url) as http:
        id = await added(http, "count")
        for method, path in PATHS:
            for one in (id, NOBODY):
                assert (await http.request(method, f"/tasks/{one}{path}")).status_code == 401


async def test_a_task_of_another_function_is_unknown(url: str) -> None:
    async with a_server(url, make_report, be_refused) as http:
        id = await added(http, "count")
        assert (await http.get(f"/tasks/{id}", headers=ADA)).status_code == 404


@pytest.mark.parametrize("name", ["make_report", "count"])
async def test_a_waiting_task_is_cancelled(url: str, name: str) -> None:
    async with a_server(url) as http:
        id = await added(http, name, delay=60)
        answer = await http.post(f"/tasks/{id}/cancel", headers=ADA)
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
        again = await http.post(f"/tasks/{id}/cancel", headers=ADA)
        assert (again.status_code, again.json()) == (200, answer.json())
        none = await http.get(f"/tasks/{id}/result", headers=ADA)
        assert none.status_code == 409
        assert none.json()["detail"] == "The task has no result: it was cancelled"


async def test_a_running_task_is_asked_to_stop(url: str) -> None:
    async with a_server(url) as http:
        id = await added(http, "make_report")
        await until_async(lambda: _running(http, id))
        answer = await http.post(f"/tasks/{id}/cancel", headers=ADA)
        assert answer.json()["cancel_requested"]
        assert (await finished(http, id))["state"] == "cancelled"


async def test_a_failure_is_told_without_what_was_raised(url: str) -> None:
    async with a_server(url) as http:
        id = await added(http, "be_refused")
        status = await finished(http, id)
        assert (status["state"], status["error"]) == ("failed", "it failed")
        answer = await http.get(f"/tasks/{id}/result", headers=ADA)
        assert (answer.status_code, answer.json()["detail"]) == (409, "The task has no result: it failed")
        assert not any(word in answer.text for word in ("Traceback", SECRET, "db.internal", "ValueError"))


@pytest.mark.parametrize(("errors", "said"), [(False, "it was cancelled"), (True, "sent back by anna")])
async def test_the_reason_of_a_cancellation_is_told_only_with_the_errors(url: str, errors: bool, said: str) -> None:
    app, tasks = a_shop(url)
    app.include_router(tasks.router(owner=owns, errors=errors), prefix="/tasks")
    async with serving(app) as http:
        id = await added(http, "make_report", delay=60)
        await (await tasks.get(id)).cancel("sent back by anna")
        assert (await finished(http, id))["error"] == said


async def test_an_application_may_show_messages_of_exceptions_but_no_secret(url: str) -> None:
    async with a_server(url, errors=True) as http:
        id = await added(http, "be_refused")
        status = await finished(http, id)
        assert status["error"] == "ValueError: the database db.internal refused [hidden]"


@pytest.mark.parametrize(
    ("name", "status_code", "answer"),
    [
        ("count", 200, 3),
        ("do_nothing", 200, None),
        ("make_link", 200, "https://files/report?X-Security-Token=1234567"),  # made for its owner
        ("make_key", 403, {"detail": "The result of this task is secret"}),
        ("make_account", 200, {"name": "ada", "key": "[hidden]"}),
    ],
)
async def test_results_are_answered_without_what_is_secret(url: str, name: str, status_code: int, answer: Any) -> None:
    async with a_server(url, FUNCTIONS[name]) as http:
        id = await added(http, name)
        await finished(http, id)
        result = await http.get(f"/tasks/{id}/result", headers=ADA)
        assert (result.status_code, result.json()) == (status_code, answer)


async def test_a_status_has_no_arguments_and_no_secret(url: str) -> None:
    async with a_server(url) as http:
        id = await added(http, "make_report")
        gate("ada").open.release()
        status = await until_async(lambda: _with_progress(http, id))
        assert "arguments" not in status
        assert (status["progress"]["done"], status["progress"]["total"]) == (1, STEPS)
        assert status["progress"]["description"] == "with [hidden]"
        await http.post(f"/tasks/{id}/cancel", headers=ADA)
        await finished(http, id)


async def _with_progress(http: httpx.AsyncClient, id: str) -> Any:
    found = (await http.get(f"/tasks/{id}", headers=ADA)).json()
    return found if found["progress"] and found["progress"]["done"] else None


class Owners:
    """Objects that may be called are functions, too."""

    async def __call__(self, record: TaskRecord, user: User) -> bool:
        return bool(record.arguments["user"] == user)


def without_annotation(task: Any, user: User) -> Any:
    return task.arguments["user"] == user


without_annotation.__annotations__.pop("task")


async def with_a_request(task: "TaskRecord", request: Request, user: User) -> bool:
    return task.arguments["user"] == user and request.path_params["id"] == task.id


def knows_only_the_user(user: User) -> bool:
    return user == "ada"


async def raises(task: TaskRecord, user: User) -> bool:
    if task.arguments["user"] != user:
        raise HTTPException(403, "this is not yours")
    return True


@pytest.mark.parametrize("owner", [Owners(), without_annotation, with_a_request, knows_only_the_user, raises])
async def test_owners_may_be_written_in_several_ways(url: str, owner: Any) -> None:
    async with a_server(url, owner=owner) as http:
        id = await added(http, "count")
        assert (await http.get(f"/tasks/{id}", headers=ADA)).status_code == 200
        assert (await http.get(f"/tasks/{id}", headers=EVE)).status_code == 404


async def forgets_to_answer(task: TaskRecord) -> None:
    task.arguments["user"]


async def test_an_owner_that_returns_nothing_refuses(url: str) -> None:
    async with a_server(url, owner=forgets_to_answer) as http:
        id = await added(http, "count")
        assert (await http.get(f"/tasks/{id}", headers=ADA)).status_code == 404


async def test_dependencies_of_an_owner_can_be_overridden(url: str) -> None:
    def session() -> str:
        raise AssertionError("not in this test")

    def has_session(task: TaskRecord, found: Annotated[str, Depends(session)]) -> bool:
        return bool(task.arguments["user"] == found)

    app, tasks = a_shop(url)
    app.include_router(tasks.router(owner=has_session), prefix="/tasks")
    app.dependency_overrides[session] = lambda: "ada"
    async with serving(app) as http:
        id = await added(http, "count")
        assert (await http.get(f"/tasks/{id}")).status_code == 200


async def yields(task: TaskRecord) -> Any:
    yield True


async def hidden(task: "Unknown") -> bool:  # type: ignore[name-defined]  # noqa: F821
    return True


async def takes_anything(*tasks: TaskRecord) -> bool:
    return True


@pytest.mark.parametrize("owner", [None, "ada", yields, hidden, takes_anything])
async def test_what_cannot_be_an_owner_is_refused_at_once(url: str, owner: Any) -> None:
    with pytest.raises(InvalidOption, match="owner="):
        Afterwards(FastAPI(), url).router(owner=owner)


async def test_an_owner_is_required(url: str) -> None:
    with pytest.raises(TypeError, match="owner"):
        Afterwards(FastAPI(), url).router()  # type: ignore[call-arg]


async def test_only_task_functions_have_tasks(url: str) -> None:
    with pytest.raises(InvalidOption, match="not a task function"):
        Afterwards(FastAPI(), url).router(owns, owner=owns)  # type: ignore[arg-type]


async def test_the_api_is_typed(url: str) -> None:
    app, tasks = a_shop(url)
    app.include_router(tasks.router(make_report, count, owner=owns), prefix="/tasks")
    api = app.openapi()
    assert sorted(path for path in api["paths"] if path.startswith("/tasks")) == [
        "/tasks/{id}", "/tasks/{id}/cancel", "/tasks/{id}/events", "/tasks/{id}/result"
    ]  # fmt: skip
    status = api["components"]["schemas"]["TaskStatus"]
    shown = "attempt cancel_requested created_at error finished_at id name progress started_at state"
    assert " ".join(sorted(status["properties"])) == shown
    result = api["paths"]["/tasks/{id}/result"]["get"]
    assert sorted(result["responses"]) == ["200", "202", "404", "409", "422"]
    schemas = {
        code: answer.get("content", {}).get("application/json", {}).get("schema")
        for code, answer in result["responses"].items()
    }
    assert schemas["200"]["anyOf"] == [{"$ref": "#/components/schemas/Report"}, {"type": "integer"}]
    assert schemas["202"] == {"$ref": "#/components/schemas/TaskStatus"}
    assert schemas["409"] == {"$ref": "#/components/schemas/NoResult"}
    events = api["paths"]["/tasks/{id}/events"]["get"]
    assert list(events["responses"]["200"]["content"]) == ["text/event-stream"]
    for operation in (result, events, api["paths"]["/tasks/{id}"]["get"], api["paths"]["/tasks/{id}/cancel"]["post"]):
        names = [parameter["name"] for parameter in operation["parameters"]]
        assert "id" in names and "x-user" in names, names
        assert not {"task", "afterwards_task", "given"} & set(names)
        assert "requestBody" not in operation


@pytest.mark.parametrize(
    ("options", "schema"),
    [
        ({}, {}),
        ({"result": Report}, {"$ref": "#/components/schemas/Report"}),
    ],
)
async def test_without_functions_the_result_has_the_given_type(url: str, options: Any, schema: Any) -> None:
    app, tasks = a_shop(url)
    app.include_router(tasks.router(owner=owns, **options), prefix="/tasks")
    answer = app.openapi()["paths"]["/tasks/{id}/result"]["get"]["responses"]["200"]
    described = answer["content"]["application/json"]["schema"]
    described.pop("title", None)
    assert described == schema


async def test_accepted_says_where_the_task_is(url: str) -> None:
    async with a_server(url) as http:
        answer = await http.post("/add/count", headers=ADA)
        assert (answer.status_code, answer.headers["retry-after"]) == (202, "1")
        assert answer.headers["location"] == f"/tasks/{answer.json()['id']}"
        assert (await http.get(answer.headers["location"], headers=ADA)).status_code == 200


async def test_accepted_names_the_router_of_the_function(url: str) -> None:
    app, tasks = a_shop(url, worker=False)
    for prefix, functions in (("/all", []), ("/reports", [make_report]), ("/others", [be_refused, count])):
        app.include_router(tasks.router(*functions, owner=owns), prefix=prefix)
    async with serving(app) as http:
        for name, prefix in (("make_report", "/reports"), ("count", "/others")):
            answer = await http.post(f"/add/{name}", headers=ADA)
            assert answer.headers["location"] == f"{prefix}/{answer.json()['id']}"


async def test_accepted_works_without_a_router(url: str) -> None:
    app, tasks = a_shop(url, worker=False)
    tasks.router(owner=owns)  # made, and not included
    async with serving(app) as http:
        answer = await http.post("/add/count", headers=ADA)
        assert answer.status_code == 202
        assert "location" not in answer.headers


@pytest.mark.parametrize("by", ["root_path of the server", "root_path of the application", "a mounted application"])
async def test_accepted_works_behind_a_prefix(url: str, by: str) -> None:
    app, tasks = a_shop(url, worker=False)
    nested = APIRouter(prefix="/v1")
    nested.include_router(tasks.router(owner=owns), prefix="/tasks")
    app.include_router(nested)
    config: dict[str, Any] = {}
    prefix, outer = "", app
    match by:
        case "root_path of the server":
            config = {"root_path": "/shop"}
        case "root_path of the application":
            app.root_path = "/shop"
        case _:
            outer, prefix = FastAPI(), "/shop"
            outer.mount("/shop", app)
    async with serving(outer, **config) as http:
        answer = await http.post(f"{prefix}/add/count", headers=ADA)
        assert answer.headers["location"] == f"/shop/v1/tasks/{answer.json()['id']}"
    await tasks.client.close()


async def test_accepted_names_the_task_that_answers_for_a_call(url: str) -> None:
    app, tasks = a_shop(url, worker=False)
    app.include_router(tasks.router(owner=owns), prefix="/tasks")

    @app.post("/once", status_code=202)
    async def once(background_tasks: BackgroundTasks) -> Any:
        answer = background_tasks.accepted(background_tasks.add_task(count.options(idempotency_key="1"), "ada", SECRET))
        answer.set_cookie("seen", "1")
        return answer

    async with serving(app) as http:
        first, second = [await http.post("/once") for _ in range(2)]
        assert first.json() == second.json()
        assert first.headers["location"] == second.headers["location"] == f"/tasks/{first.json()['id']}"
        assert "seen=1" in second.headers["set-cookie"]


async def test_only_a_handle_can_be_accepted(url: str) -> None:
    app, _ = a_shop(url, worker=False)

    @app.post("/plain")
    async def plain(background_tasks: BackgroundTasks) -> Any:
        with pytest.raises(InvalidOption, match="give the handle"):
            background_tasks.accepted(background_tasks.add_task(print))  # type: ignore[func-returns-value, arg-type]

    async with serving(app) as http:
        assert (await http.post("/plain")).status_code == 200
