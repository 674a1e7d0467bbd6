"""From a checkpoint to a page: loads, listens, and ends."""

import asyncio
import ipaddress
import secrets
import socket
from collections.abc import Collection
from pathlib import Path
from typing import cast

from jaxvision.classifier import best_seed, load_classifier, load_training_data
from jaxvision.data.dataset import DecodedDataset
from jaxvision.data.decode import quiet_pillow
from jaxvision.errors import InputError

try:
    import uvicorn
    from starlette.types import ASGIApp
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ImportError as error:
    raise InputError(
        "the page needs the packages of the extra serve; install them with "
        "pip install 'jaxvision-classics[serve]'"
    ) from error

from jaxvision.serve.app import make_app
from jaxvision.serve.review import Review
from jaxvision.serve.session import Session
from jaxvision.serve.survey import Data
from jaxvision.serve.worker import Worker
from jaxvision.typing import Progress

HEAD_SECONDS = 20.0
"""For the head of a connection's first request to arrive."""

MAX_CONNECTIONS = 32


def serve(
    checkpoint: Path,
    *,
    root: Path | None = None,
    corrections: Path = Path("corrections.csv"),
    host: str = "127.0.0.1",
    port: int = 0,
) -> None:
    """Answers until Ctrl-C.

    Args:
      checkpoint: folder of a training run, or of one of its seeds.
      root: of the network's data set, where it has moved.
      corrections: CSV of what a person says of labels; made at the first mark.
      host: name or address to listen on; with any but a loopback one others can reach
        the page, if they know its address.
      port: 0: a free one.

    Raises:
      InputError: no checkpoint there, a file of corrections that is none or has no
        folder, or nothing can listen there.
    """
    review = Review(corrections)
    listener = listen(host, port)
    with listener, quiet_pillow():
        folder = best_seed(checkpoint)
        classifier = load_classifier(folder)
        worker, session = Worker(), Session(classifier)

        def load(progress: Progress) -> DecodedDataset:
            # Here, beside the worker, and not before somebody opens the page.
            session.warm_up_layers()
            return load_training_data(classifier, root, progress=progress)

        data = Data(session.network, load, worker, finish=review.begin)
        token = secrets.token_urlsafe(18)
        app = make_app(
            session, data, review, worker, token=token, hosts=host_names(host)
        )
        server = make_server(app)
        try:
            # Before the address is said: Ctrl-C ends a server that has not begun, too.
            with server.capture_signals():
                worker.submit(session.warm_up)
                print(f"checkpoint: {folder}")
                print(f"corrections: {corrections}")
                if not is_loopback(host):
                    print("others can reach this page, if they know its address")
                print(f"page: {address(listener, host)}/{token}/", flush=True)
                server.run([listener])
        finally:
            data.stop()
            worker.stop()


def make_server(app: ASGIApp) -> uvicorn.Server:
    """What speaks HTTP for an application, within bounds, and prints errors alone."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=1,
        )
    )


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
      InputError: it cannot; with the reason.
    """
    try:
        (family, _, _, _, place), *_ = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listener = socket.create_server(place[:2], family=family)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"can't listen on {host}, port {port} ({reason}); give another `port` or "
            "`host`"
        ) from error
    return listener


def address(listener: socket.socket, host: str) -> str:
    """What to open in a browser on this machine: `http://127.0.0.1:8123`."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    shown = f"[{shown}]" if ":" in shown else shown
    return f"http://{shown}:{listener.getsockname()[1]}"


def host_names(host: str) -> Collection[str]:
    """What a browser may call this server, as of `Guard`."""
    own = {host.lower()}
    if not is_loopback(host):
        own.add(socket.gethostname().lower())
    return own | {"127.0.0.1", "::1", "localhost"}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that name."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Protocol(H11Protocol):
    """HTTP, without connections that send nothing."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.loop.call_later(HEAD_SECONDS, self._close_if_silent)

    def _close_if_silent(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            cast(asyncio.Transport, self.transport).abort()
