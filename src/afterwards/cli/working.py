"""Run an application's tasks in this process, without a server."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from fastapi import FastAPI

from afterwards import engines
from afterwards.cli.errors import ExitCode, StoreUnreachable, UsageError
from afterwards.cli.health import Health, Verdict
from afterwards.cli.processes import report
from afterwards.core.errors import EngineError
