"""The JSON API below ``{prefix}/api``."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query

from afterwards.client import steering
from afterwards.core.errors import UnknownTask
from afterwards.dashboard import actions, overview, schedules
from afterwards.dashboard.actions import Action
from afterwards.dashboard.answers import Json
from afterwards.dashboard.filters import Asked, Listing, Name, Selection
from afterwards.dashboard.site import Acting, Visited
from afterwards.dashboard.throughput import Span, throughput
from afterwards.engine import Paused
from afterwards.tasks.record import TaskRecord

router = APIRouter(default_response_class=Json)
