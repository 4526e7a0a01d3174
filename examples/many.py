"""Many tasks at once: all of a newsletter's mails are stored, or none.

uvicorn many:app
curl -X POST localhost:8000/newsletters/spring
"""

from pathlib import Path

from fastapi import FastAPI

from afterwards import Afterwards, task

app = FastAPI()
tasks = Afterwards(app)
SUBSCRIBERS = [f"reader{number}@example.com" for number in range(1, 1001)]


@task(retries=3, queue="mail")
def send(newsletter: str, email: str) -> None:
    with Path("mails.txt").open("a") as mails:
        mails.write(f"{newsletter} to {email}\n")


@task
def report(newsletter: str) -> None:
    with Path("reports.txt").open("a") as reports:
        reports.write(f"{newsletter} was sent out\n")


@app.post("/newsletters/{newsletter}")
async def send_out(newsletter: str):
    mails = [send.call(newsletter, email) for email in SUBSCRIBERS]
    handles = await tasks.enqueue_many([*mails, report.options(delay=1).call(newsletter)])
    return {"mails": len(mails), "report": handles[-1].id}
