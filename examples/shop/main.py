"""The shop's endpoints.

cd examples && uvicorn shop.main:app
"""

from uuid import uuid4

from fastapi import FastAPI, HTTPException, UploadFile
from pydantic import BaseModel

from afterwards import Afterwards, BackgroundTasks
from shop.database import Database, create_tables
from shop.settings import settings
from shop.tasks import count_view, import_products, send_mail, tell_warehouse

app = FastAPI(title="Shop")
tasks = Afterwards(app, settings.tasks_url)
create_tables()


class Customer(BaseModel):
    email: str
    name: str


class Order(BaseModel):
    email: str
    sku: str


@app.post("/customers", status_code=201)
def sign_up(customer: Customer, database: Database, background_tasks: BackgroundTasks):
    """Send a mail after the response, with FastAPI's usual line. The task is not lost in a crash."""
    database.execute("INSERT INTO customers (email, name) VALUES (?, ?)", [customer.email, customer.name])
    welcome = background_tasks.add_task(send_mail, customer.email, "Welcome!", f"Hello {customer.name}, come in!")
    return {"tasks": [welcome.id]}


@app.post("/orders", status_code=201)
def order(order: Order, database: Database, background_tasks: BackgroundTasks):
    """Add two tasks in order: the customer gets the mail after the warehouse has the order."""
    number = database.execute("INSERT INTO orders (email, sku) VALUES (?, ?)", [order.email, order.sku]).lastrowid
    assert number is not None
    told = background_tasks.add_task(tell_warehouse, number, order.sku)
    confirmed = background_tasks.add_task(send_mail, order.email, f"Order {number}", f"We are packing {order.sku}.")
    return {"order": number, "tasks": [told.id, confirmed.id]}


@app.post("/imports", status_code=202)
async def upload_products(file: UploadFile, background_tasks: BackgroundTasks):
    """Save the upload, and pass its path to the task."""
    path = settings.folder / f"{uuid4()}.csv"
    path.write_bytes(await file.read())
    started = background_tasks.add_task(import_products, path)
    return {"tasks": [started.id]}


@app.get("/products/{sku}")
def get_product(sku: str, database: Database, background_tasks: BackgroundTasks):
    product = database.execute("SELECT sku, name, price FROM products WHERE sku = ?", [sku]).fetchone()
    if product is None:
        raise HTTPException(404, f"there is no product {sku}")
    background_tasks.add_task(count_view, sku)
    return dict(product)


@app.get("/tasks/{id}")
async def get_task(id: str):
    """Return what a client may know of its task."""
    record = await (await tasks.get(id)).status()
    return {"name": record.name, "state": record.state, "attempt": record.attempt}
