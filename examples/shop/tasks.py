"""What the shop does after its responses. A task may run twice if the process dies in it, and each is written so."""

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
    """`smtplib` blocks: a `def` function has a thread for that."""
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "shop@example.com", to, subject
    mail.set_content(text)
    with smtplib.SMTP("127.0.0.1", settings.mail_port, timeout=10) as smtp:
        smtp.send_message(mail)


@task(retries=3)
def import_products(path: Path, database: sqlite3.Connection = Depends(get_database)) -> int:
    """Rows are written by key, so that a second run of the same file changes nothing."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        with database:  # each row is kept at once: the import of a long file shows in the shop while it goes on
            database.execute(UPSERT, row)
    return len(rows)


@task(retries=Retry(5, wait=0.5, never=(httpx.HTTPStatusError,)), timeout=30)
async def tell_warehouse(order: int, sku: str) -> None:
    """The warehouse knows an order by its number, and takes the second call for what it is."""
    async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
        answer = await client.put(f"{settings.warehouse_url}/orders/{order}", json={"sku": sku})
    answer.raise_for_status()


def count_view(sku: str) -> None:
    """A plain function: lost if the process dies in it, as ever, and nobody minds."""
    with (settings.folder / "views.txt").open("a") as views:
        views.write(f"{sku}\n")
