"""Servers that never end: a deadline closes the socket."""

import gzip
import itertools
import socket
import threading
from collections.abc import Iterator

import pytest

from jaxvision.data.fetch import Downloader, FetchError, Limits, Stopped

HEAD = b"HTTP/1.1 200 OK\r\n"


def drip(text: bytes) -> Iterator[bytes]:
    for byte in text:
        yield bytes([byte])


ENDLESS = {
    "status": lambda: drip(b"HTTP/1.1 200 " + b"O" * 60_000),
    "header": lambda: itertools.chain([HEAD], drip(b"X: " + b"y" * 60_000)),
    "continue": lambda: itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "trailers": lambda: itertools.chain(
        [HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"],
        itertools.repeat(b"X: y\r\n"),
    ),
    "gzip": lambda: itertools.chain(
        [HEAD + b"Content-Encoding: gzip\r\n\r\n"], itertools.repeat(gzip.compress(b""))
    ),
    "silence": lambda: iter(()),
}


@pytest.fixture
def serve() -> Iterator[object]:
    """Starts a server that sends pieces for ever; gives its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def start(pieces: Iterator[bytes]) -> str:
        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                try:
                    for piece in pieces:
                        connection.sendall(piece)
                        if over.wait(0.02):
                            return
                    over.wait(20)
                except OSError:
                    pass

        threading.Thread(target=answer, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/x"

    yield start
    over.set()
    listener.close()


@pytest.mark.parametrize("kind", ENDLESS)
def test_what_never_ends_meets_the_deadline(kind: str, serve) -> None:
    downloader = Downloader(Limits(time_limit=0.6, tries=1))
    with pytest.raises(FetchError, match=r"slower than|no answer in time"):
        downloader.fetch(serve(ENDLESS[kind]()))


def test_stop_ends_a_transfer_at_once(serve) -> None:
    downloader = Downloader(Limits(time_limit=30, read_timeout=30, tries=1))
    threading.Timer(0.3, downloader.stop).start()
    with pytest.raises(Stopped):
        downloader.fetch(serve(ENDLESS["header"]()))
