"""Functions that kill their process, and innocent ones beside them."""

import asyncio
import os
import signal

from fastapi import FastAPI

from afterwards import Afterwards, BackgroundTasks, task

app = FastAPI()
tasks = Afterwards(app, f"sqlite:///{os.environ['CHAOS_DATABASE']}")


@task
async def kill_the_process() -> None:
    await asyncio.sleep(0.05)  # so that the innocent ones are running
    os.kill(os.getpid(), signal.SIGKILL)


@task
def leave_the_process() -> None:
    os._exit(1)


@task
async def harmless(number: int) -> int:
    await asyncio.sleep(0.2)
    return number


POISONS = {function.name: function for function in (kill_the_process, leave_the_process)}


@app.post("/poison/{name}")
async def poison(name: str, background_tasks: BackgroundTasks) -> list[str]:
    """The poison in the middle of ten innocent tasks."""
    background_tasks.configure(ordered=False)
    calls = [(harmless, number) for number in range(5)]
    handles = [background_tasks.add_task(*call) for call in calls]
    handles.append(background_tasks.add_task(POISONS[name]))
    handles += [background_tasks.add_task(*call) for call in calls]
    return [handle.id for handle in handles]
