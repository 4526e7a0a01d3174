"""A canary: a secret that is given to a task is in no answer of the dashboard, in no log and in no stream."""

import asyncio
import logging
from typing import Annotated

import httpx
import pytest
from pydantic import BaseModel, SecretStr

from afterwards import Afterwards, task
from dashboard.fixtures import ACT, READ, House
from face.serving import finished

