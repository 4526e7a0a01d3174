"""A second installation on the Celery app of the first one, which a worker cannot serve."""

from fastapi import FastAPI

from afterwards import Afterwards
from afterwards.celery import CeleryDispatch
from fleet.apps.shop import celery_app

__all__ = ["celery_app"]

app = FastAPI()
tasks = Afterwards(app, dispatch=CeleryDispatch(celery_app))
