"""A server that shows a network, and a client that asks it."""

import http.client
import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from drawn_images import COLORS
from PIL import Image

pytest.importorskip("starlette", reason="needs the extra serve")
pytest.importorskip("uvicorn", reason="needs the extra serve")

from jaxvision.classifier import Classifier, load_training_data
from jaxvision.serve.app import make_app
from jaxvision.serve.review import Review
from jaxvision.serve.server import address, host_names, listen, make_server
from jaxvision.serve.session import Session
from jaxvision.serve.survey import Data
from jaxvision.serve.worker import Worker

TOKEN = "abc123"
HOSTILE = "<img src=x onerror=alert(1)>"
"""Name of a class, and of its folder."""


class Page:
    """A server on a free port, and a client."""

    def __init__(self, url: str, worker: Worker) -> None:
        self.url = url
        self.worker = worker
        self.port = int(url.rpartition(":")[2])

    def request(
        self,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers in lower case and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            method = "GET" if body is None else "POST"
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, found, answer.read()
        finally:
            connection.close()

    def ask(self, path: str, body: bytes | None = None, **values: Any) -> Any:
        """What the server answers, as JSON or as an image's pixels."""
        query = f"?{urlencode(values)}" if values else ""
        status, headers, content = self.request(f"/{TOKEN}/api/{path}{query}", body)
        assert status == 200, content
        if headers["content-type"] == "image/png":
            return np.asarray(Image.open(io.BytesIO(content)))
        return json.loads(content)

    def wait_for_data(self) -> dict[str, Any]:
        """The data set's status, once it is read or will not be."""
        while (found := self.ask("data"))["state"] not in ("ready", "absent"):
            time.sleep(0.02)
        return found

    def refusal(self, path: str, body: bytes | None = None) -> tuple[int, str]:
        """Status and words of an answer that is none."""
        status, _, content = self.request(f"/{TOKEN}/api/{path}", body)
        return status, json.loads(content)["error"]


@contextmanager
def open_page(
    classifier: Classifier,
    host: str = "127.0.0.1",
    *,
    corrections: Path = Path("unused.csv"),
) -> Iterator[Page]:
    """Serves a network."""
    review = Review(corrections)
    worker, session = Worker(), Session(classifier)
    data = Data(
        session.network,
        lambda progress: load_training_data(classifier, progress=progress),
        worker,
        finish=review.begin,
    )
    with listen(host, 0) as listener:
        app = make_app(
            session, data, review, worker, token=TOKEN, hosts=host_names(host)
        )
        server = make_server(app)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield Page(address(listener, host), worker)
        finally:
            server.should_exit = True
            thread.join()
            data.stop()
            worker.stop()


def image_file(color: str = "blue", size: int = 40, kind: str = "PNG") -> bytes:
    """An image of one color."""
    pixels = np.full((size, size, 3), COLORS[color], np.uint8)
    with io.BytesIO() as buffer:
        Image.fromarray(pixels).save(buffer, kind)
        return buffer.getvalue()
