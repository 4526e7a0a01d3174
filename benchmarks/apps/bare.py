"""FastAPI alone."""

from fastapi import BackgroundTasks, FastAPI

app = FastAPI()
left = 0


async def nothing(number: int) -> None:
    """Do nothing, and be counted."""
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
    """How many tasks have not ended."""
    return left
