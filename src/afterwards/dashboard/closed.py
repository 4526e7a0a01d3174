"""The dashboard without ``auth``: open only to a developer's own browser."""

from ipaddress import ip_address
from urllib.parse import urlsplit

from fastapi import HTTPException, Request

from afterwards import environment, telemetry
from afterwards.dashboard.access import Access

FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")
"""Headers of proxies: with one of them, the client's address may be the proxy's."""


def unless_local(request: Request) -> Access:
    """Let in a browser on the machine of a developer, under ``fastapi dev``. Refuse everybody else.

    The name in the address must be local, too: else any site could let its own name point here.
    """
    if environment.development() and _is_local(request):
        return Access.ACT
    telemetry.dashboard_closed()
    raise HTTPException(
        403,
        "This dashboard is closed: it was installed without auth. Give it a dependency that decides who may see it, as "
        'Afterwards(app, dashboard="/afterwards", auth=Depends(admin)). Under `fastapi dev` it is open to localhost.',
    )


def _is_local(request: Request) -> bool:
    return (
        request.client is not None
        and _is_loopback(request.client.host)
        and _is_loopback(_name_of(request.headers.get("host", "")))
        and not any(header in request.headers for header in FORWARDED)
    )


def _name_of(host: str) -> str:
    """Return the name in a ``Host`` header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
