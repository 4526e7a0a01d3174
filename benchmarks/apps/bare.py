"""The application with FastAPI's own background tasks."""

from fastapi import BackgroundTasks, FastAPI

app = FastAPI()
left = 0


async def nothing(number: int) -> None:
    """Do nothing but count the run."""
    global left
    left -= 1


@app.post("/tasks")
async def add(background_tasks: BackgroundTasks) -> dict[str, bool]:
    global left
    left += 1
    background_tasks.add_task(nothing, 1)
    return {"accepted": True}


@app.get("/left")
async def tell() -> int:
    """Return how many tasks have not ended."""
    return left
