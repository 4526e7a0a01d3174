"""A progress bar in the browser: the page follows its task by server-sent events.

uvicorn progress_page:app                                             # open http://localhost:8000
"""

import asyncio

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from afterwards import Afterwards, BackgroundTasks, TaskRecord, progress, task

app = FastAPI()
tasks = Afterwards(app)


@task
async def import_rows(rows: int) -> str:
    async for _ in progress(range(rows), unit="rows"):
        await asyncio.sleep(0.05)
    return f"{rows} rows imported"


def owns(task: TaskRecord) -> bool:
    return True  # whoever knows the id; add `user: User = Depends(current_user)`, and compare it with task.arguments


app.include_router(tasks.router(import_rows, owner=owns), prefix="/tasks")


@app.post("/imports", status_code=202)
async def begin(background_tasks: BackgroundTasks, rows: int = 100):
    return background_tasks.accepted(background_tasks.add_task(import_rows, rows))


@app.get("/", response_class=HTMLResponse)
async def page() -> str:
    return """<!doctype html><title>Import</title>
<button>Import</button> <progress value="0"></progress> <output></output>
<script>
document.querySelector("button").onclick = async () => {
  const task = (await fetch("/imports", {method: "POST"})).headers.get("Location");
  const events = new EventSource(task + "/events");
  const show = event => {
    const {state, progress} = JSON.parse(event.data);
    document.querySelector("progress").value = progress?.fraction ?? 0;
    document.querySelector("output").textContent = state;
  };
  events.addEventListener("status", show);
  events.addEventListener("finished", event => { show(event); events.close(); });
};
</script>"""
