"""One file over HTTP, from servers that nobody vouches for.

Every wait and every size has a bound, kept by closing the socket; only http and https
are spoken, also after a redirect; what comes back is bytes that the caller must still
check.
"""

import dataclasses
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from typing import Annotated, Any, TypeVar
from urllib.parse import urljoin, urlsplit

import requests
import urllib3.exceptions
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from jaxvision.config import Bounds, check

Made = TypeVar("Made")

TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses worth another try; every other one but 200 is an answer."""

_CHUNK = 64 * 1024
_UNREACHABLE = 32
_HEADERS = {
    # Some old image hosts turn away whoever does not look like a browser.
    "User-Agent": "Mozilla/5.0 (compatible; jaxvision)",
    "Accept-Encoding": "identity",
}


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds for the download of one file."""

    connect_timeout: Annotated[float, Bounds(0, above=True)] = 10.0
    """Seconds until a connection must stand."""
    read_timeout: Annotated[float, Bounds(0, above=True)] = 20.0
    """Seconds that a server may stay silent."""
    time_limit: Annotated[float, Bounds(0, above=True)] = 90.0
    """Seconds for one file, with all its tries and the waits between them."""
    tries: Annotated[int, Bounds(1)] = 3
    """Tries after time-outs, broken connections and HTTP 408, 425, 429 and 5xx."""
    backoff: Annotated[float, Bounds(0)] = 0.5
    """Seconds of wait before the second try; each further wait is twice as long."""
    max_bytes: Annotated[int, Bounds(1)] = 25_000_000
    """Largest file in bytes; the transfer is cut off beyond it."""
    max_redirects: Annotated[int, Bounds(0)] = 5
    """Redirects that are followed for one file."""


class FetchError(Exception):
    """A file that could not be had; the message is a short reason.

    Attributes:
      unreachable: whether no connection could be made, so that the network itself
        may be what is missing.
      transient: whether another try may bring the file.
    """

    def __init__(
        self, reason: str, *, unreachable: bool = False, transient: bool = False
    ) -> None:
        super().__init__(reason)
        self.unreachable = unreachable
        self.transient = transient


class NoNetwork(FetchError):
    """Not even tried: so far no server at all could be reached."""

    def __init__(self) -> None:
        super().__init__("no server can be reached", unreachable=True)


class Stopped(Exception):
    """The download was given up because `Downloader.stop` was called."""


class Downloader:
    """Fetches files for any number of threads at once.

    After 32 files whose servers could not be reached, and none whose server could,
    there is no network: from then on every `fetch` fails at once instead of waiting.
    """

    def __init__(self, limits: Limits) -> None:
        """
        Args:
          limits: of every download.

        Raises:
          InputError: a limit out of its bounds.
        """
        check(limits, "limits.")
        self.limits = limits
        self.reached = False
        """Whether any server answered so far."""
        self._unreachable = 0
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._under_way: set[_Sockets] = set()

    def stop(self) -> None:
        """Makes transfers under way, and all later ones, raise `Stopped`."""
        self._stop.set()
        with self._lock:
            for sockets in self._under_way:
                sockets.shut()

    def fetch(self, url: str) -> bytes:
        """The body of `url`, unchecked; raises as `receive` does."""
        return self.receive(url, b"".join)

    def receive(self, url: str, make: Callable[[Iterator[bytes]], Made]) -> Made:
        """What `make` makes of the body of `url`, piece by piece, unchecked.

        Args:
          url: http or https.
          make: called anew in each try. What it raises ends the download.

        Raises:
          FetchError: the body could not be had within the limits.
          Stopped: `stop` was called.
        """
        deadline = time.monotonic() + self.limits.time_limit
        wait = self.limits.backoff
        tried = 0
        while True:
            tried += 1
            if not self.reached and self._unreachable >= _UNREACHABLE:
                raise NoNetwork
            try:
                with closing(self._pieces(url, deadline)) as pieces:
                    return make(pieces)
            except FetchError as error:
                out_of_time = time.monotonic() + wait >= deadline
                if not error.transient or tried >= self.limits.tries or out_of_time:
                    self._unreachable += error.unreachable
                    raise
            if self._stop.wait(wait):
                raise Stopped
            wait *= 2

    def _pieces(self, url: str, deadline: float) -> Generator[bytes]:
        """The body as it comes, in one try."""
        sockets = _Sockets()
        # A server that sends its status, headers or trailers byte by byte, or answers
        # without end, never meets a time limit of the socket's own.
        timer = threading.Timer(max(deadline - time.monotonic(), 0.01), sockets.shut)
        timer.daemon = True
        timer.start()
        with self._lock:
            self._under_way.add(sockets)
        try:
            with _Session(sockets) as session:
                for _ in range(self.limits.max_redirects + 1):
                    with self._open(session, url, deadline) as response:
                        if not response.is_redirect:
                            yield from self._body(response, deadline)
                            return
                        url = urljoin(url, response.headers["location"])
        except (
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            OSError,
            ValueError,  # host names that cannot be encoded, malformed addresses
        ) as error:
            if self._stop.is_set():
                raise Stopped from error
            if time.monotonic() >= deadline:
                raise self._too_slow() from error
            raise _explained(error) from error
        finally:
            timer.cancel()
            with self._lock:
                self._under_way.discard(sockets)
            sockets.close()
        raise FetchError(f"more than {self.limits.max_redirects} redirects")

    def _too_slow(self) -> FetchError:
        return FetchError(f"slower than {self.limits.time_limit:g} s")

    def _open(
        self, session: requests.Session, url: str, deadline: float
    ) -> requests.Response:
        if self._stop.is_set():
            raise Stopped
        if urlsplit(url).scheme.lower() not in ("http", "https"):
            raise FetchError("neither http nor https")
        left = max(deadline - time.monotonic(), 0.01)
        timeout = (
            min(self.limits.connect_timeout, left),
            min(self.limits.read_timeout, left),
        )
        response = session.get(url, stream=True, timeout=timeout, headers=_HEADERS)
        self.reached = True
        return response

    def _body(self, response: requests.Response, deadline: float) -> Iterator[bytes]:
        if response.status_code != 200:
            raise FetchError(
                f"HTTP {response.status_code}",
                transient=response.status_code in TRANSIENT,
            )
        received = 0
        # read1 returns what has arrived: iter_content would wait for a whole chunk,
        # and a server that drips a byte a second would never meet the deadline.
        while chunk := response.raw.read1(_CHUNK, decode_content=True):
            received += len(chunk)
            if received > self.limits.max_bytes:
                raise FetchError(f"larger than {self.limits.max_bytes} bytes")
            if time.monotonic() > deadline:
                raise self._too_slow()
            if self._stop.is_set():
                raise Stopped
            yield chunk
        # What is closed at the deadline ends as if it were whole.
        if self._stop.is_set():
            raise Stopped
        if time.monotonic() > deadline:
            raise self._too_slow()


class _Sockets:
    """The sockets of a transfer, which another thread can shut."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._is_shut = False

    def add(self, connection: socket.socket) -> None:
        # A duplicate: TLS takes the socket itself over.
        with self._lock:
            self._open.append(connection.dup())
        if self._is_shut:
            self.shut()

    def shut(self) -> None:
        with self._lock:
            self._is_shut = True
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with self._lock:
            for connection in self._open:
                connection.close()
            self._open = []


class _Adapter(HTTPAdapter):
    """Connects by way of sockets that are known."""

    def __init__(self, sockets: _Sockets) -> None:
        def known(kind: Any) -> Any:
            class Connection(kind):
                def _new_conn(self) -> socket.socket:
                    connection = super()._new_conn()
                    sockets.add(connection)
                    return connection

            return Connection

        class Pool(HTTPConnectionPool):
            ConnectionCls = known(HTTPConnection)

        class SecurePool(HTTPSConnectionPool):
            ConnectionCls = known(HTTPSConnection)

        self._pools = {"http": Pool, "https": SecurePool}
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*args, **options)
        manager.pool_classes_by_scheme = self._pools
        return manager


class _Session(requests.Session):
    """Leaves redirects to the caller: requests would read their bodies unbounded."""

    def __init__(self, sockets: _Sockets) -> None:
        super().__init__()
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter(sockets))

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


def _explained(error: Exception) -> FetchError:
    """The error of a try in a few words of ours: servers' words may be hostile."""
    match error:
        case requests.exceptions.SSLError():
            return FetchError("no trusted TLS connection")
        case requests.ConnectTimeout():
            return FetchError("no connection in time", unreachable=True, transient=True)
        case requests.Timeout() | urllib3.exceptions.TimeoutError():
            return FetchError("no answer in time", transient=True)
        case requests.ConnectionError() if _is_unknown_host(error):
            return FetchError("unknown host name", unreachable=True)
        case requests.ConnectionError():
            return FetchError("no connection", unreachable=True, transient=True)
        case urllib3.exceptions.ProtocolError():
            return FetchError("broken transfer", transient=True)
        case _:
            return FetchError(f"no valid address or answer ({type(error).__name__})")


def _is_unknown_host(error: requests.ConnectionError) -> bool:
    """Whether the name servers know that there is no such host.

    They answer so for most dead links; waiting to ask again would double the time of
    a long list. A name server that does not answer is another matter.
    """
    reason = getattr(error.args[0], "reason", None) if error.args else None
    cause = getattr(reason, "__cause__", None)
    return isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME
