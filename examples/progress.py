"""A task that reports its progress and uses its context.

uvicorn progress:app
curl -X POST "localhost:8000/imports?rows=50"
curl localhost:8000/tasks/<the task's id>
"""

import asyncio

from fastapi import Depends, FastAPI

from afterwards import Afterwards, BackgroundTasks, TaskContext, progress, task

app = FastAPI()
tasks = Afterwards(app)


@task(timeout=60)
async def import_rows(rows: int, ctx: TaskContext = Depends()) -> str:
    async for _ in progress(range(rows), desc="import", unit="rows"):
        await asyncio.sleep(0.02)
    return f"imported in attempt {ctx.attempt}, {ctx.deadline} was the last moment"


@task
def resize_pictures(count: int, ctx: TaskContext = Depends()) -> None:
    with progress(total=count, desc="resize") as bar:
        for _ in range(count):
            ctx.check_cancelled()  # a `def` function can only end itself
            bar.update(1)


@app.post("/imports", status_code=202)
async def begin(rows: int, background_tasks: BackgroundTasks):
    imported = background_tasks.add_task(import_rows, rows)
    resized = background_tasks.add_task(resize_pictures, 3)
    return {"import": imported.id, "resize": resized.id}


@app.get("/tasks/{id}")
async def show(id: str):
    task = await (await tasks.get(id)).status()
    shown = task.progress
    return {"state": task.state, "done": shown and shown.done, "of": shown and shown.total, "result": task.result}
