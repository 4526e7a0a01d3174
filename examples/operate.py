"""Find what failed, run it again, and keep secrets out of sight.

uvicorn operate:app
curl -X POST "localhost:8000/sync/ada?token=s3cr3t-t0ken"   # {"id": "0193…"}
curl localhost:8000/failed                                  # the failure, with [hidden] where the token was
curl -X POST localhost:8000/failed/requeue                  # {"requeued": 1}
curl localhost:8000/stats
"""

from datetime import timedelta
from typing import Annotated

from fastapi import FastAPI
from pydantic import SecretStr

from afterwards import Afterwards, BackgroundTasks, Secret, TaskHandle, TaskRecord, task

app = FastAPI()
tasks = Afterwards(app)
online = False  # the other system answers


@task
async def sync(user: str, token: SecretStr, code: Annotated[str, Secret()] = "") -> str:
    if not online:
        raise ConnectionError(f"refused {user} with {token.get_secret_value()}")
    return user


@app.post("/sync/{user}", status_code=202)
async def start(user: str, token: SecretStr, background_tasks: BackgroundTasks) -> TaskHandle[str]:
    return background_tasks.add_task(sync, user, token)  # a handle becomes {"id": ...}


@app.get("/failed")
async def failed() -> list[TaskRecord]:
    return await tasks.list(state="failed", name=sync, since=timedelta(hours=1))


@app.post("/failed/requeue")
async def requeue():
    global online
    online = True
    return {"requeued": await tasks.requeue(state="failed", name=sync)}


@app.get("/stats")
async def stats():
    found = await tasks.stats()
    return {"states": found.states, "oldest": found.oldest, "workers": found.workers}
