"""Tell requests that another site makes in a visitor's browser from the dashboard's own, and from scripts."""

from collections.abc import Mapping
from urllib.parse import urlsplit

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

_PORTS = {"http": 80, "https": 443}


def from_another_site(method: str, scheme: str, headers: Mapping[str, str]) -> bool:
    """Return True if a browser says that another site makes the request, or does not say that this one does.

    - ``Sec-Fetch-Site``, which every current browser sends over HTTPS and to localhost, decides. Links from elsewhere
      and typed addresses may open a page. Everything else must come from the dashboard's own pages: what changes
      something, and what reads for a script.
    - Without it, as over HTTP, ``Origin`` must be the address of the request.
    - A request without both comes from no browser, such as curl or a script. It may pass: no site can make it.
    """
    origin, source = headers.get("origin"), headers.get("sec-fetch-site")
    if source is not None:
        return source != "same-origin" and not (method in SAFE and (source == "none" or _opens_a_page(headers)))
    return origin is not None and _address(origin) not in _addresses(scheme, headers.get("host", ""))


def _opens_a_page(headers: Mapping[str, str]) -> bool:
    return headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"


def _addresses(scheme: str, host: str) -> list[tuple[str, str, int]]:
    """Return the address of the request, if it has one."""
    here = _address(f"{scheme}://{host}")
    return [] if here is None else [here]


def _address(url: str) -> tuple[str, str, int] | None:
    """Return scheme, host and port; None if the URL has no host, as the origin "null"."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        return None
    return (parts.scheme, parts.hostname, port) if parts.hostname else None
