"""A private Redis server as a broker, and the commands that look at an application with a fleet."""

import subprocess
import sys
from pathlib import Path

from face.processes import ENVIRONMENT
from servers.missing import missing
from servers.process import NotInstalled
from servers.redis import RedisServer


def a_redis_server() -> RedisServer:
    """A server, not started. Skips the test if it is not installed."""
    try:
        return RedisServer()
    except NotInstalled as error:
        missing(str(error))


def run_command(folder: Path, name: str, *, code: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "afterwards", name, "--app", "main:app"]
    done = subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == code, done
    return done
