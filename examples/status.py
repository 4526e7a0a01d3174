"""Answer at once, and let the client poll its task: state, result, cancellation.

uvicorn status:app
curl -X POST "localhost:8000/sums?numbers=1&numbers=2&numbers=39"     # {"task": "0193…"}
curl localhost:8000/sums/0193…                                        # {"state": "succeeded", …}
curl -X DELETE localhost:8000/sums/0193…                              # stops it, if it is not too late
"""

import asyncio
from typing import Annotated

from fastapi import FastAPI, HTTPException, Query

from afterwards import Afterwards, BackgroundTasks, task

app = FastAPI()
tasks = Afterwards(app)


@task
async def add_up(numbers: list[int], pause: float = 0) -> int:
    await asyncio.sleep(pause)
    return sum(numbers)


@app.post("/sums", status_code=202)
async def start_sum(numbers: Annotated[list[int], Query()], background_tasks: BackgroundTasks, pause: float = 0):
    handle = background_tasks.add_task(add_up, numbers, pause)  # a handle: TaskHandle[int]
    return {"task": handle.id}


@app.get("/sums/{id}")
async def get_sum(id: str):
    record = await (await tasks.get(id)).status()
    return {"state": record.state, "attempt": record.attempt, "result": record.result, "reason": record.reason}


@app.delete("/sums/{id}")
async def stop_sum(id: str):
    await (await tasks.get(id)).cancel("the client changed its mind")


@app.post("/sums-at-once")
async def sum_at_once(numbers: Annotated[list[int], Query()]) -> int:
    """Await a result: `enqueue` is not part of the request's chain, so the task starts at once."""
    handle = await add_up.enqueue(numbers)
    result = await handle.result(timeout=5)
    if result != sum(numbers):
        raise HTTPException(500, "arithmetic has changed")
    return result
