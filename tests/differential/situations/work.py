"""The work that people give to background tasks."""

import asyncio
import csv
import io
import smtplib
import sqlite3
from contextlib import closing
from email.message import EmailMessage
from pathlib import Path
from typing import Annotated

import httpx
from fastapi import FastAPI, File, UploadFile

from differential.client import Client
from differential.diary import record, wait_until
from differential.kit import Kit
from differential.neighbours import mail_server, web_server
from differential.scene import get, post, situation, wait_for


def mail_sent(port: int, to: str, subject: str) -> None:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "shop@example.com", to, subject
    mail.set_content("Welcome!")
    with smtplib.SMTP("127.0.0.1", port, timeout=5) as smtp:
        smtp.send_message(mail)
    record("mail: sent")


@situation(post("/signup/ada@example.com"))
def mail(kit: Kit) -> FastAPI:
    app = kit.app()
    task = kit.task(mail_sent)
    port = mail_server()

    @app.post("/signup/{address}")
    async def signup(address: str, background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        background_tasks.add_task(task, port, address, subject="Welcome")
        return {"message": "Welcome!"}

    return app


def webhook_called(url: str, payload: dict[str, int]) -> None:
    response = httpx.post(url, json=payload, timeout=5, verify=False, trust_env=False).raise_for_status()
    record(f"webhook: {response.status_code}")


@situation(post("/orders/7"))
def webhook(kit: Kit) -> FastAPI:
    app = kit.app()
    task = kit.task(webhook_called)
    port = web_server()

    @app.post("/orders/{number}", status_code=202)
    def order(number: int, background_tasks: kit.BackgroundTasks) -> dict[str, int]:
        background_tasks.add_task(task, f"http://127.0.0.1:{port}/hook", {"order": number})
        return {"order": number}

    return app


@situation(post("/orders/7"))
def webhook_that_is_refused(kit: Kit) -> FastAPI:
    """The exception comes from a library, and the second call, behind it, is not made."""
    app = kit.app()
    task = kit.task(webhook_called)
    port = web_server()

    @app.post("/orders/{number}", status_code=202)
    def order(number: int, background_tasks: kit.BackgroundTasks) -> dict[str, int]:
        background_tasks.add_task(task, f"http://127.0.0.1:{port}/refused", {"order": number})
        background_tasks.add_task(task, f"http://127.0.0.1:{port}/hook", {"order": number})
        return {"order": number}

    return app


def order_stored(database: Path, article: str) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("INSERT INTO orders VALUES (?)", (article,))
    record(f"stored: {article}")


@situation(post("/orders/tea"), wait_for("stored: tea"), post("/orders/milk"), wait_for("stored: milk"), get("/orders"))
def database(kit: Kit) -> FastAPI:
    app = kit.app()
    task = kit.task(order_stored)
    path = kit.folder / "orders.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE orders (article TEXT)")

    @app.post("/orders/{article}")
    def order(article: str, background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        background_tasks.add_task(task, path, article)
        return {"article": article}

    @app.get("/orders")
    def orders() -> list[str]:
        with closing(sqlite3.connect(path)) as connection:
            return [article for (article,) in connection.execute("SELECT article FROM orders ORDER BY article")]

    return app


def log_written(log: Path, line: str) -> None:
    with log.open("a") as file:
        file.write(f"{line}\n")
    record(f"log: {log.read_text().split()}")


@situation(post("/notify/ada"))
def log_file(kit: Kit) -> FastAPI:
    app = kit.app()
    task = kit.task(log_written)

    @app.post("/notify/{name}")
    async def notify(name: str, background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        background_tasks.add_task(task, kit.folder / "log.txt", name)
        background_tasks.add_task(task, kit.folder / "log.txt", line="sent")
        return {"message": "Notification sent"}

    return app


def picture_measured(name: str, content: bytes) -> None:
    record(f"picture {name}: {len(content)} bytes, {content[:4]!r}")


_PICTURE = {"picture": ("cat.png", b"\x89PNG\xff\x00\xfe" * 3, "image/png")}


@situation(
    post("/read", files=_PICTURE),
    wait_for("picture cat.png: 21 bytes, b'\\x89PNG'"),
    post("/given", files=_PICTURE),
)
def uploaded_bytes(kit: Kit) -> FastAPI:
    """The content of an upload, which is no text, goes to the task as bytes."""
    app = kit.app()
    task = kit.task(picture_measured)

    @app.post("/read", status_code=202)
    async def read(picture: UploadFile, background_tasks: kit.BackgroundTasks) -> dict[str, str | None]:
        background_tasks.add_task(task, str(picture.filename), await picture.read())
        return {"name": picture.filename}

    @app.post("/given", status_code=202)
    def given(picture: Annotated[bytes, File()], background_tasks: kit.BackgroundTasks) -> dict[str, int]:
        background_tasks.add_task(task, "without a name", content=picture)
        return {"bytes": len(picture)}

    return app


@situation(post("/", files=_PICTURE))
def uploaded_file_itself(kit: Kit) -> FastAPI:
    """A live object, so a plain function."""
    app = kit.app()

    async def measured(picture: UploadFile) -> None:
        record(f"{picture.filename} is closed: {picture.file.closed}")
        if not picture.file.closed:
            record(f"{len(await picture.read())} bytes")

    @app.post("/")
    async def upload(picture: UploadFile, background_tasks: kit.BackgroundTasks) -> dict[str, str | None]:
        background_tasks.add_task(measured, picture)
        return {"name": picture.filename}

    return app


progress: dict[str, int] = {}


async def imported(name: str, text: str) -> None:
    for number, row in enumerate(csv.reader(io.StringIO(text)), start=1):
        await asyncio.sleep(0)
        record(f"{name}: {row}")
        progress[name] = number


def imported_in_a_thread(name: str, text: str) -> None:
    asyncio.run(imported(name, text))


def _poll_the_progress(client: Client) -> None:
    csv_file = {"file": ("people.csv", b"ada,1815\nalan,1912\ngrace,1906\n", "text/csv")}
    for name in ("people", "people-in-a-thread"):
        client.ask("POST", f"/imports/{name}", files=csv_file)
        wait_until(lambda name=name: client.peek(f"/imports/{name}") == {"rows": 3}, "all rows")
        client.ask("GET", f"/imports/{name}")


@situation(_poll_the_progress)
def progress_in_shared_memory(kit: Kit) -> FastAPI:
    """A dictionary of the module, written by tasks and read by a handler."""
    app = kit.app()
    on_loop, in_thread = kit.task(imported), kit.task(imported_in_a_thread)

    @app.post("/imports/{name}", status_code=202)
    async def start(name: str, file: UploadFile, background_tasks: kit.BackgroundTasks) -> dict[str, str]:
        task = in_thread if name.endswith("thread") else on_loop
        background_tasks.add_task(task, name, (await file.read()).decode())
        return {"see": f"/imports/{name}"}

    @app.get("/imports/{name}")
    async def read(name: str) -> dict[str, int]:
        return {"rows": progress.get(name, 0)}

    return app
