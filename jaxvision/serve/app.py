"""The routes: what the page asks, as JSON and PNG."""

import asyncio
import importlib.resources
import json
from collections.abc import Awaitable, Callable, Collection
from typing import Any, TypeVar

import matplotlib
import numpy as np
from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from jaxvision.config import to_plain
from jaxvision.data.decode import BadImage
from jaxvision.data.limits import MAX_UPLOAD_BYTES
from jaxvision.errors import InputError
from jaxvision.serve.guard import Guard, read_body
from jaxvision.serve.review import Review
from jaxvision.serve.session import SHEET_COLUMNS, UNITS, Gone, Session, png
from jaxvision.serve.survey import Data, Survey
from jaxvision.serve.worker import Busy, Worker

Result = TypeVar("Result")

ANSWER_SECONDS = 120.0
"""For an answer to be computed; the first of a kind compiles a program."""

MAX_MARK_BYTES = 1 << 14
"""Of what a person says of an image."""

NEAREST = 5
"""Images of the data set that are shown beside one."""

FILES = {
    "": ("jaxvision.serve", "page/index.html", "text/html; charset=utf-8"),
    "icon.svg": ("jaxvision.serve", "page/icon.svg", "image/svg+xml"),
    "page.css": ("jaxvision.serve", "page/page.css", "text/css"),
    # The report's looks are the house's.
    "style.css": ("jaxvision.report", "templates/style.css", "text/css"),
    **{
        name: ("jaxvision.serve", f"page/{name}", "text/javascript")
        for name in (
            "main.js",
            "ask.js",
            "data.js",
            "image.js",
            "layers.js",
            "review.js",
        )
    },
}
"""What the browser gets, by path: package, file and type."""

_PALETTE = (
    np.rint(255 * matplotlib.colormaps["viridis"](np.arange(256))[:, :3])
    .astype(np.uint8)
    .tobytes()
)
"""Of feature maps."""


def make_app(
    session: Session,
    data: Data,
    review: Review,
    worker: Worker,
    *,
    token: str,
    hosts: Collection[str],
) -> ASGIApp:
    """The application.

    Args:
      session: what answers about images that are given.
      data: what answers about those of the data set; begun by the first question.
      review: what a person says of their labels.
      worker: where all is computed.
      token, hosts: as of `Guard`.
    """
    routes = _Routes(session, data, review, worker)
    app = Starlette(
        routes=routes.all(),
        exception_handlers={
            HTTPException: _refuse,
            BadImage: _say(400),
            InputError: _say(400),
            Gone: _say(404, "this image is kept no longer; give it again"),
            Busy: _say(503, "busy; try again in a moment"),
            TimeoutError: _say(503, "this takes too long; try something else"),
        },
    )
    return Guard(app, token=token, hosts=hosts)


class _Json(JSONResponse):
    """JSON in ASCII: names of files need not be text."""

    def render(self, content: Any) -> bytes:
        return json.dumps(to_plain(content), allow_nan=False).encode("ascii")


class _Routes:
    def __init__(
        self, session: Session, data: Data, review: Review, worker: Worker
    ) -> None:
        self._session = session
        self._data = data
        self._review = review
        self._worker = worker

    def all(self) -> list[Route]:
        image = "/api/images/{image}"
        return [
            *(Route(f"/{name}", _file(name)) for name in FILES),
            Route("/api/about", self.about),
            Route("/api/images", self.add, methods=["POST"]),
            Route(f"{image}/pixels.png", self.pixels),
            Route(f"{image}/classes", self.classes),
            Route(f"{image}/evidence.png", self.evidence),
            Route(f"{image}/units", self.units),
            Route(f"{image}/sheet.png", self.sheet),
            Route(f"{image}/field", self.field),
            Route(f"{image}/nearest", self.nearest),
            Route("/api/data", self.status),
            Route("/api/data/exciting", self.exciting),
            Route("/api/data/{index:int}.png", self.data_image),
            Route("/api/review", self.review),
            Route("/api/review/{index:int}", self.mark, methods=["POST"]),
        ]

    async def about(self, request: Request) -> Response:
        return _Json(await self._compute(self._session.about))

    async def add(self, request: Request) -> Response:
        content = await read_body(request, MAX_UPLOAD_BYTES)
        image = await self._compute(lambda: self._session.add(content))
        return _Json({"image": image})

    async def pixels(self, request: Request) -> Response:
        image = request.path_params["image"]
        # Not after what is computed: it is what people wait for first.
        content = await asyncio.to_thread(lambda: png(self._session.pixels(image)))
        return Response(content, media_type="image/png")

    async def classes(self, request: Request) -> Response:
        image, query = request.path_params["image"], request.query_params
        occluder = None
        if "side" in query:
            top, left, side = (_integer(query, n) for n in ("top", "left", "side"))
            occluder = (top, left, side)
        found = await self._compute(lambda: self._session.predict(image, occluder))
        return _Json(found)

    async def evidence(self, request: Request) -> Response:
        image, query = request.path_params["image"], request.query_params
        method, label = query.get("method", ""), _integer(query, "label")
        return await self._png(
            lambda: png(self._session.evidence(image, method, label))
        )

    async def units(self, request: Request) -> Response:
        image, query = request.path_params["image"], request.query_params
        layer, start = query.get("layer", ""), _integer(query, "start", low=0)
        units = await self._compute(lambda: self._session.units(image, layer, start))
        return _Json({"units": units, "columns": SHEET_COLUMNS, "page": UNITS})

    async def sheet(self, request: Request) -> Response:
        image, query = request.path_params["image"], request.query_params
        layer, start = query.get("layer", ""), _integer(query, "start", low=0)
        return await self._png(
            lambda: png(self._session.sheet(image, layer, start), palette=_PALETTE)
        )

    async def field(self, request: Request) -> Response:
        image, query = request.path_params["image"], request.query_params
        layer, unit = query.get("layer", ""), _integer(query, "unit")
        found = await self._compute(lambda: self._session.field(image, layer, unit))
        return _Json(found)

    async def status(self, request: Request) -> Response:
        self._data.begin()
        return _Json(self._data.status())

    async def nearest(self, request: Request) -> Response:
        image, survey = request.path_params["image"], self._survey()

        def find() -> list[dict[str, Any]]:
            found = survey.nearest(self._session.features(image), NEAREST)
            return [
                {**survey.describe(index), "cosine": cosine} for index, cosine in found
            ]

        return _Json({"images": await self._compute(find)})

    async def exciting(self, request: Request) -> Response:
        survey, query = self._survey(), request.query_params
        layer, unit = query.get("layer", ""), _integer(query, "unit")
        return _Json({"images": survey.excited_by(layer, unit)})

    async def data_image(self, request: Request) -> Response:
        dataset, index = self._survey().dataset, request.path_params["index"]
        if index >= len(dataset.images):
            raise HTTPException(404, f"no image {index}")
        return await self._png(lambda: png(dataset.image(index)))

    async def review(self, request: Request) -> Response:
        query = request.query_params
        order, start = query.get("order", ""), _integer(query, "start", low=0)
        _ = self._survey()
        found = await self._compute(lambda: self._review.list(order, start))
        return _Json(found)

    async def mark(self, request: Request) -> Response:
        index = request.path_params["index"]
        content = await read_body(request, MAX_MARK_BYTES)
        given = QueryParams(content.decode("latin-1"))
        action, label = given.get("action", ""), _integer(given, "label")
        _ = self._survey()
        found = await self._compute(lambda: self._review.mark(index, action, label))
        return _Json(found)

    def _survey(self) -> Survey:
        if self._data.survey is None:
            raise HTTPException(409, "the data set is not read yet")
        return self._data.survey

    async def _png(self, draw: Callable[[], bytes]) -> Response:
        return Response(await self._compute(draw), media_type="image/png")

    async def _compute(self, call: Callable[[], Result]) -> Result:
        future = asyncio.wrap_future(self._worker.submit(call))
        async with asyncio.timeout(ANSWER_SECONDS):
            return await future


def _file(name: str) -> Callable[[Request], Awaitable[Response]]:
    package, path, kind = FILES[name]
    content = importlib.resources.files(package).joinpath(path).read_bytes()

    async def answer(request: Request) -> Response:
        return Response(content, media_type=kind)

    return answer


def _integer(query: QueryParams, name: str, low: int = -(10**9)) -> int:
    """A whole number of a query, small enough for a pixel or a unit."""
    text = query.get(name, "0")
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 9) or (
        int(text) < low
    ):
        raise HTTPException(400, f"{name} must be a whole number")
    return int(text)


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _Json({"error": error.detail}, error.status_code)


def _say(
    status: int, text: str | None = None
) -> Callable[[Request, Exception], Awaitable[Response]]:
    """A handler that answers with a line: `text`, or what the error says."""

    async def answer(request: Request, error: Exception) -> Response:
        line = text
        if line is None:
            line = error.reason if isinstance(error, BadImage) else str(error)
        return _Json({"error": line}, status)

    return answer
