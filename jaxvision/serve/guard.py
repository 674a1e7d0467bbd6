"""What every request passes: the address is known only to whoever was told it.

A page elsewhere cannot ask in a visitor's name: the random token stands in the path,
and a name that was made to point at this machine (DNS rebinding) is no host of ours.
"""

import asyncio
import ipaddress
import secrets
from collections.abc import Collection

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_SECONDS = 30.0
"""For a body to arrive."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; "
        "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # The address is a secret.
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Of every answer."""


class Guard:
    """Lets a request through whose host and token are right, without the token."""

    def __init__(self, app: ASGIApp, *, token: str, hosts: Collection[str]) -> None:
        """
        Args:
          app: what is guarded.
          token: first part of every path.
          hosts: what the header Host may say, without the port, in lower case; an
            address that is no loopback one stands for itself alone, and "0.0.0.0" or
            "::" for every address that is written in numbers.
        """
        self._app = app
        self._token = token.encode()
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        request = Request(scope)
        if not self._is_host(request.headers.get("host", "")):
            answer = PlainTextResponse("not a name of this server", 400)
            await answer(scope, receive, send_with_headers)
            return
        _, first, *rest = scope["path"].split("/", 2)
        if not secrets.compare_digest(first.encode(), self._token):
            answer = PlainTextResponse(
                "Nothing here: open the address that the command printed.", 404
            )
            await answer(scope, receive, send_with_headers)
            return
        if not rest:
            # What the page names is relative to it.
            answer = RedirectResponse(f"/{first}/")
            await answer(scope, receive, send_with_headers)
            return
        inner = {**scope, "path": f"/{rest[0]}", "root_path": ""}
        await self._app(inner, receive, send_with_headers)

    def _is_host(self, header: str) -> bool:
        host = header.lower()
        if host.startswith("["):
            host = host.partition("]")[0][1:]
        else:
            host = host.partition(":")[0]
        if host in self._hosts:
            return True
        return bool(self._hosts & {"0.0.0.0", "::"}) and _is_address(host)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def read_body(request: Request, limit: int) -> bytes:
    """The body of a request, in memory.

    Raises:
      HTTPException: it is longer than `limit` bytes, or takes too long.
    """
    too_long = HTTPException(413, f"more than {limit:,} bytes; send a smaller file")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_long
    parts, length = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                length += len(part)
                if length > limit:
                    raise too_long
                parts.append(part)
    except TimeoutError:
        raise HTTPException(408, "the file took too long to arrive") from None
    return b"".join(parts)
