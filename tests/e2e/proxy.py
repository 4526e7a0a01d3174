"""A reverse proxy that serves an application below a path which the application does not know: ``python -m e2e.proxy``.

It takes the origin of the application and the path, and prints its port once it listens.
"""

import socket
import sys
from collections.abc import AsyncIterator

import httpx
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


def proxy(origin: str, outside: str) -> FastAPI:
    """Return the proxy. It keeps the ``Host`` that browsers send, as proxies are told to."""
    app = FastAPI(openapi_url=None)
    inside = httpx.AsyncClient(base_url=origin, timeout=None)

    @app.api_route(outside + "{path:path}", methods=["GET", "POST"])
    async def forward(request: Request, path: str) -> StreamingResponse:
        url = httpx.URL(path=path or "/", query=request.url.query.encode())
        sent = inside.build_request(request.method, url, headers=request.headers.raw, content=await request.body())
        answer = await inside.send(sent, stream=True)

        async def body() -> AsyncIterator[bytes]:
            try:
                async for piece in answer.aiter_raw():
                    yield piece
            finally:
                await answer.aclose()

        kept = {name: value for name, value in answer.headers.items() if name not in HOP_BY_HOP}
        return StreamingResponse(body(), answer.status_code, kept)

    return app


def main() -> None:
    origin, outside = sys.argv[1:]
    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(proxy(origin, outside), log_level="warning")).run(sockets=[listening])


if __name__ == "__main__":
    main()
