"""Tasks that start later: after a delay, or at an instant. They survive restarts in between.

uvicorn later:app
curl -X POST localhost:8000/trials/ada@example.com
curl -X POST "localhost:8000/reminders/ada@example.com?at=2030-01-01T09:00:00Z"
"""

from datetime import timedelta
from pathlib import Path

from fastapi import FastAPI
from pydantic import AwareDatetime

from afterwards import Afterwards, BackgroundTasks, task

app = FastAPI()
tasks = Afterwards(app)
TRIAL = timedelta(seconds=2)


@task(retries=3)
def send_mail(email: str, text: str) -> None:
    with Path("mails.txt").open("a") as mails:
        mails.write(f"{email}: {text}\n")


@app.post("/trials/{email}")
async def start_trial(email: str, background_tasks: BackgroundTasks):
    background_tasks.add_task(send_mail.options(delay=TRIAL), email, "Your trial has ended.")
    background_tasks.add_task(send_mail, email, "Your trial has begun.")
    return {"ends_in": TRIAL}


@app.post("/reminders/{email}")
async def remind(email: str, at: AwareDatetime, background_tasks: BackgroundTasks):
    reminder = background_tasks.add_task(send_mail.options(run_at=at), email, "You asked to be reminded.")
    return {"task": reminder.id}
