"""The application that this folder's tests test; each file adds the endpoints that it needs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from afterwards import Afterwards


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
    yield {"sender": "lifespan@example.org"}


app = FastAPI(lifespan=lifespan)
tasks = Afterwards(app, "sqlite:///must-not-appear.db")
