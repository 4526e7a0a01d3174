"""As in FastAPI's tutorial: a handler and a dependency write to a log after the response."""

from typing import Annotated

from fastapi import BackgroundTasks, Depends, FastAPI

from differential.diary import record

app = FastAPI()


# a task
def write_log(message: str, level: str = "info") -> None:
    record(f"{level}: {message}")


def get_query(background_tasks: BackgroundTasks, q: str | None = None) -> str | None:
    if q:
        background_tasks.add_task(write_log, f"found query {q}", level="debug")
    return q


@app.post("/send-notification/{email}")
async def send_notification(
    email: str, background_tasks: BackgroundTasks, q: Annotated[str | None, Depends(get_query)]
) -> dict[str, str]:
    background_tasks.add_task(write_log, f"message to {email}")
    return {"message": "Message sent"}
