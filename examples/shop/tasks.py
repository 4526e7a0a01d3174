"""The shop's task functions. After a crash a task may run twice, so each is idempotent or harmless to repeat."""

import csv
import smtplib
import sqlite3
from email.message import EmailMessage
from pathlib import Path

import httpx
from fastapi import Depends

from afterwards import Retry, task
from shop.database import get_database
from shop.settings import settings

UPSERT = """
    INSERT INTO products (sku, name, price) VALUES (:sku, :name, :price)
    ON CONFLICT (sku) DO UPDATE SET name = excluded.name, price = excluded.price
"""


@task(retries=5)
def send_mail(to: str, subject: str, text: str) -> None:
    """Send a mail. `smtplib` blocks, so this is a `def` function, which runs in a thread."""
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "shop@example.com", to, subject
    mail.set_content(text)
    with smtplib.SMTP("127.0.0.1", settings.mail_port, timeout=10) as smtp:
        smtp.send_message(mail)


@task(retries=3)
def import_products(path: Path, database: sqlite3.Connection = Depends(get_database)) -> int:
    """Import a CSV file. Rows are upserted by key, so a second run changes nothing."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        with database:  # commits each row, so the shop shows a long import while it runs
            database.execute(UPSERT, row)
    return len(rows)


@task(retries=Retry(5, wait=0.5, never=(httpx.HTTPStatusError,)), timeout=30)
async def tell_warehouse(order: int, sku: str) -> None:
    """Send an order to the warehouse, which ignores a second call with the same number."""
    async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
        answer = await client.put(f"{settings.warehouse_url}/orders/{order}", json={"sku": sku})
    answer.raise_for_status()


def count_view(sku: str) -> None:
    """A plain function, which may be lost in a crash, as in FastAPI."""
    with (settings.folder / "views.txt").open("a") as views:
        views.write(f"{sku}\n")
