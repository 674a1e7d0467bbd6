"""FaceScrub against a server on this machine, which also misbehaves."""

import csv
import dataclasses
import hashlib
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jaxvision.data.facescrub import (
    Face,
    FaceScrubConfig,
    Outcome,
    Unusable,
    count_by_person,
    crop_face,
    encode_crop,
    folder_name,
    parse_row,
    prepare_faces,
    prepare_facescrub,
    read_lists,
)
from jaxvision.data.fetch import Downloader, FetchError, Limits, NoNetwork, Stopped
from jaxvision.errors import InputError

QUICK = Limits(
    connect_timeout=10,
    read_timeout=10,
    time_limit=30,
    tries=3,
    backoff=0.01,
    max_bytes=200_000,
    max_redirects=3,
)
# Only where a server is slow on purpose: this machine may be slow without.
IMPATIENT = {"silent": {"read_timeout": 0.4}, "dripping": {"time_limit": 1}}
REPOSITORY = Path(__file__).resolve().parents[2]


class Server(ThreadingHTTPServer):
    """Serves what `routes` says; `requests` counts the requests of each path."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.routes: dict[str, Callable[[_Handler], None]] = {}
        self.requests: Counter[str] = Counter()
        self.closing = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what many of these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests[self.path] += 1
        self.server.routes.get(self.path, answer(b"no such file", 404))(self)

    def log_message(self, *args: object) -> None:
        pass


def answer(
    body: bytes, status: int = 200, **headers: object
) -> Callable[[_Handler], None]:
    def respond(handler: _Handler) -> None:
        handler.send_response(status)
        for name, value in ({"Content-Length": len(body)} | headers).items():
            if value is not None:
                handler.send_header(name, str(value))
        handler.end_headers()
        handler.wfile.write(body)

    return respond


def redirect(to: str) -> Callable[[_Handler], None]:
    return answer(b"moved", 302, Location=to)


def in_turn(*answers: Callable[[_Handler], None]) -> Callable[[_Handler], None]:
    """The first answer to the first request, and so on; the last one for ever."""
    left = list(answers)
    return lambda handler: (left.pop(0) if len(left) > 1 else left[0])(handler)


def silent(handler: _Handler) -> None:
    handler.server.closing.wait(5)


def dripping(handler: _Handler) -> None:
    """A byte every 50 ms: never silent, never done."""
    answer(b"", **{"Content-Length": 1000})(handler)
    while not handler.server.closing.wait(0.05):
        handler.wfile.write(b"x")


def endless(handler: _Handler) -> None:
    answer(b"", **{"Content-Length": None})(handler)
    while not handler.server.closing.is_set():
        handler.wfile.write(bytes(10_000))


def cut_chunk(handler: _Handler) -> None:
    handler.protocol_version = "HTTP/1.1"
    answer(b"", **{"Content-Length": None, "Transfer-Encoding": "chunked"})(handler)
    handler.wfile.write(b"ff\r\nonly this")
    handler.close_connection = True


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that this machine may have knows nothing of our server."""
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.closing.set()
    server.shutdown()
    thread.join()
    server.server_close()


def image(seed: int = 0, size: tuple[int, int] = (40, 30)) -> bytes:
    """A JPEG of (width, height) with noise of its own."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def face(
    content: bytes,
    url: str = "http://127.0.0.1:1/x.jpg",
    *,
    name: str = "Ada Lovelace",
    face_id: int = 1,
    box: tuple[int, int, int, int] = (5, 6, 25, 28),
) -> Face:
    sha256 = hashlib.sha256(content).hexdigest()
    return Face(name, 100 + face_id, face_id, url, box, sha256)


def row(face: Face) -> str:
    box = ",".join(map(str, face.box))
    return (
        f"{face.name}\t{face.image_id}\t{face.face_id}\t{face.url}\t{box}"
        f"\t{face.sha256}\n"
    )


@pytest.fixture
def served(server: Server) -> list[Face]:
    """Six good faces of two people."""
    faces = []
    for i in range(6):
        content = image(i)
        server.routes[f"/{i}.jpg"] = answer(content)
        name = ("Ada Lovelace", "Kurt Gödel")[i % 2]
        faces.append(face(content, server.url(f"/{i}.jpg"), name=name, face_id=i))
    return faces


def prepare(
    faces: Sequence[Face], out: Path, progress: Any = None, **options: Any
) -> dict[Face, Outcome]:
    return prepare_faces(faces, FaceScrubConfig((), out, **options), progress=progress)


def unreachable_url() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/x.jpg"


def rows_csv(out: Path) -> list[dict[str, str]]:
    with (out / "rows.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# The list


def test_list_is_read_around_header_blank_lines_and_malformed_ones(tmp_path):
    good = [face(b"a", face_id=1), face(b"b", face_id=2), face(b"c", face_id=3)]
    lines = [
        "\ufeffname\timage_id\tface_id\turl\tbbox\tsha256\n",
        row(good[0]).replace("\n", "\r\n"),
        "\n",
        "Ada Lovelace\t1\t2\n",
        row(good[1]).replace("5,6,", "5,6.5,"),
        row(good[1]).replace("\t2\t", "\tzwei\t"),
        row(good[1]).replace(good[1].sha256, "abc"),
        row(good[0]).replace("Ada", "A\x1b[31mda"),
        row(good[1]).replace("5,6", " 5, 6"),
        row(good[0]),
        row(good[0]).replace("5,6", "7,6"),
        row(good[2]).replace(good[2].sha256, good[2].sha256.upper()).strip(),
    ]
    path = tmp_path / "list.txt"
    path.write_text("".join(lines), "utf-8")
    faces, malformed = read_lists([path])
    assert faces == good
    reasons = (
        (4, "3 fields separated by tabs instead of 6"),
        (5, "the box is not x1,y1,x2,y2"),
        (6, "the face id is no number"),
        (7, "the SHA-256 is not 64 hexadecimal digits"),
        (8, "the name is empty, endless or holds unprintable characters"),
        (11, "face 1 stands in an earlier row"),
    )
    assert malformed == [f"{path}:{number}: {reason}" for number, reason in reasons]


def test_lists_are_joined(tmp_path):
    faces = [face(b"a", face_id=1), face(b"b", name="Kurt Gödel", face_id=2)]
    paths = [tmp_path / "actresses.txt", tmp_path / "actors.txt"]
    for path, one in zip(paths, faces, strict=True):
        path.write_text(row(one), "utf-8")
    assert read_lists(paths) == (faces, [])


@pytest.mark.parametrize("content", [b"", b"\n\n", os.urandom(5000), b"name\turl\n"])
def test_list_without_a_row_is_refused(tmp_path, content):
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"list\.txt: no row of a FaceScrub list"):
        read_lists([path])


def test_list_that_is_missing_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"gone\.txt: No such file.*`list`"):
        read_lists([tmp_path / "gone.txt"])
    with pytest.raises(InputError, match=r"Is a directory.*`list`"):
        read_lists([tmp_path])
    with pytest.raises(InputError, match="`list`"):
        read_lists([])


@pytest.mark.parametrize("name", ["Ada Lovelace", "Zoë O'Neil-Smith, Jr.", "王菲"])
def test_folder_has_the_persons_name(name):
    assert folder_name(name.rstrip(".")) == name.rstrip(".")


HOSTILE = [
    "..",
    ".",
    "../../etc/passwd",
    "/etc/passwd",
    "a/b",
    "a\\b",
    ".hidden",
    "C:evil",
    "x" * 199,
    "é" * 199,
    "Robert'); DROP TABLE",
    "[red]rich[/red]",
    "trailing.",
]


@pytest.mark.parametrize("name", [*HOSTILE, "nul\0byte", "~"])
def test_folder_of_a_hostile_name_is_one_plain_part(tmp_path, name):
    folder = folder_name(name)
    assert len(Path(folder).parts) == 1
    assert not folder.startswith(".")
    assert len(folder.encode()) <= 255
    (tmp_path / folder).mkdir()
    assert (tmp_path / folder).resolve().parent == tmp_path.resolve()


def test_folders_of_different_names_differ():
    names = [*HOSTILE, "a_b", "hidden", "etc_passwd", "_", ""]
    assert len({folder_name(name) for name in names}) == len(names)


# One image


def test_crop_is_the_box_of_the_stored_pixels():
    content = image()
    crop = crop_face(content, (5, 6, 25, 28))
    stored = np.asarray(Image.open(io.BytesIO(content)))
    written = Image.open(io.BytesIO(encode_crop(crop)))
    np.testing.assert_array_equal(np.asarray(written), stored[6:28, 5:25])


def test_crop_neither_applies_nor_keeps_exif_orientation():
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", exif=exif)
    assert Image.open(buffer).getexif()[0x0112] == 6
    written = Image.open(
        io.BytesIO(encode_crop(crop_face(buffer.getvalue(), (5, 6, 25, 28))))
    )
    np.testing.assert_array_equal(np.asarray(written), pixels[6:28, 5:25])
    assert 0x0112 not in written.getexif()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_crop_of_any_mode_can_be_written(mode, kind):
    if (mode, kind) == ("CMYK", "PNG"):
        pytest.skip("PNG holds no CMYK")
    buffer = io.BytesIO()
    Image.new(mode, (40, 30)).save(buffer, kind)
    written = Image.open(
        io.BytesIO(encode_crop(crop_face(buffer.getvalue(), (0, 0, 40, 30))))
    )
    assert written.size == (40, 30)
    assert written.mode == ("RGB" if mode == "CMYK" else mode)


@pytest.mark.parametrize(
    "box",
    [
        (-1, 0, 10, 10),
        (0, -1, 10, 10),
        (0, 0, 41, 10),
        (0, 0, 10, 31),
        (10, 0, 10, 10),
        (0, 10, 10, 5),
        (100, 100, 200, 200),
    ],
)
def test_box_outside_the_image_or_without_area_is_bad(box):
    with pytest.raises(Unusable, match="bad box: not inside 40×30"):
        crop_face(image(), box)


def test_box_may_be_the_whole_image():
    assert crop_face(image(), (0, 0, 40, 30)).size == (40, 30)


def bomb() -> bytes:
    """A GIF header that claims 65000×65000 pixels."""
    size = (65000).to_bytes(2, "little") * 2
    return (
        b"GIF89a" + size + b"\x80\0\0" + bytes(6) + b",\0\0\0\0" + size + b"\0\x02\0;"
    )


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>gone</html>", image()[:400], bomb(), b"%!PS-Adobe-3.0 EPSF-3.0\n"],
    ids=["empty", "html", "truncated", "bomb", "postscript"],
)
def test_what_cannot_be_decoded_is_not_an_image(content):
    with pytest.raises(Unusable, match="not an image"):
        crop_face(content, (0, 0, 4, 4))


# The network


@pytest.mark.parametrize(
    ("respond", "reason", "requests"),
    [
        (answer(b"gone", 404), "HTTP 404", 1),
        (answer(b"gone", 410), "HTTP 410", 1),
        (answer(b"sorry", 500), "HTTP 500", 3),
        (answer(b"later", 503), "HTTP 503", 3),
        (answer(b"", 204), "HTTP 204", 1),
        (silent, "no answer in time", 3),
        (dripping, "slower than 1 s", 1),
        (answer(b"half", **{"Content-Length": 8}), "broken transfer", 3),
        (cut_chunk, "broken transfer", 3),
        (answer(bytes(200_001)), "larger than 200000 bytes", 1),
        (endless, "larger than 200000 bytes", 1),
        (redirect("/x.jpg"), "more than 3 redirects", 4),
        (redirect("file:///etc/passwd"), "neither http nor https", 1),
        (redirect("FTP://127.0.0.1/x.jpg"), "neither http nor https", 1),
        (redirect("http://[broken"), "no valid address or answer", 1),
        (redirect(f"http://{'a' * 70}.example/"), "no valid address or answer", 1),
    ],
)
def test_download_that_fails(server, respond, reason, requests):
    server.routes["/x.jpg"] = respond
    name = getattr(respond, "__name__", "")
    limits = dataclasses.replace(QUICK, **IMPATIENT.get(name, {}))
    with pytest.raises(FetchError, match=f"^{reason}") as caught:
        Downloader(limits).fetch(server.url("/x.jpg"))
    assert not caught.value.unreachable
    assert server.requests["/x.jpg"] == requests


@pytest.mark.parametrize(
    "respond",
    [
        answer(b"face"),
        answer(b"face", **{"Content-Length": None}),
        in_turn(answer(b"", 500), answer(b"", 503), answer(b"face")),
        in_turn(answer(b"fa", **{"Content-Length": 4}), answer(b"face")),
        redirect("/other.jpg"),
        redirect("other.jpg"),
    ],
)
def test_download_that_comes_through(server, respond):
    server.routes["/x.jpg"] = respond
    server.routes["/other.jpg"] = answer(b"face")
    downloader = Downloader(QUICK)
    assert downloader.fetch(server.url("/x.jpg")) == b"face"
    assert downloader.reached


def test_download_comes_through_after_a_silence(server):
    server.routes["/x.jpg"] = in_turn(silent, answer(b"face"))
    limits = dataclasses.replace(QUICK, **IMPATIENT["silent"])
    assert Downloader(limits).fetch(server.url("/x.jpg")) == b"face"


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://h/x", "x.jpg", "", "data:,x"]
)
def test_only_http_and_https(url):
    downloader = Downloader(QUICK)
    with pytest.raises(FetchError, match="neither http nor https"):
        downloader.fetch(url)
    assert not downloader.reached


@pytest.mark.parametrize(
    ("number", "reason", "tries"),
    [(socket.EAI_NONAME, "unknown host name", 1), (socket.EAI_AGAIN, "no conn", 3)],
)
def test_host_that_is_unknown_is_not_asked_for_again(
    monkeypatch, number, reason, tries
):
    asked = []

    def look_up(host: str, *args: object, **kwargs: object) -> None:
        asked.append(host)
        raise socket.gaierror(number, "as the name server says")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with pytest.raises(FetchError, match=reason) as caught:
        Downloader(QUICK).fetch("http://gone.example/x.jpg")
    assert caught.value.unreachable
    assert asked == ["gone.example"] * tries


@pytest.mark.parametrize(
    ("field", "value"), [("tries", 0), ("read_timeout", 0), ("time_limit", -1)]
)
def test_limits_that_allow_nothing_are_refused(field, value):
    with pytest.raises(InputError, match=f"`limits.{field}` {value}: "):
        Downloader(Limits(**{field: value}))


def test_tls_that_cannot_be_trusted_is_refused(server):
    url = server.url("/x.jpg").replace("http:", "https:")
    with pytest.raises(FetchError, match="no trusted TLS connection"):
        Downloader(QUICK).fetch(url)


def test_download_gives_up_when_nothing_is_ever_reached():
    downloader = Downloader(dataclasses.replace(QUICK, tries=1))
    for _ in range(32):
        with pytest.raises(FetchError, match=r"^no connection$") as caught:
            downloader.fetch(unreachable_url())
    assert caught.value.unreachable
    with pytest.raises(NoNetwork):
        downloader.fetch("http://127.0.0.1/")
    assert not downloader.reached


def test_download_stops_at_once(server):
    server.routes["/x.jpg"] = dripping
    downloader = Downloader(Limits())
    threading.Timer(0.2, downloader.stop).start()
    with pytest.raises(Stopped):
        downloader.fetch(server.url("/x.jpg"))


# All of it


def test_every_status_is_counted_and_written(server, served, tmp_path):
    html = b"<html>this image has moved</html>"
    server.routes |= {
        "/html": answer(html),
        "/empty": answer(b""),
        "/outside.jpg": answer(image(20)),
        "/huge": answer(bytes(200_001)),
    }
    ada = "Ada Lovelace"
    faces = [
        *served,
        face(b"any", server.url("/404"), name=ada, face_id=10),
        face(b"any", server.url("/huge"), name=ada, face_id=11),
        face(b"any", "file:///etc/passwd", name=ada, face_id=12),
        face(image(9), server.url("/html"), name=ada, face_id=13),
        face(image(9), server.url("/empty"), name=ada, face_id=14),
        face(html, server.url("/html"), name=ada, face_id=15),
        face(image(20), server.url("/outside.jpg"), face_id=16, box=(0, 0, 41, 30)),
    ]
    out = tmp_path / "new" / "out"
    seen = []
    outcomes = prepare(
        faces, out, limits=QUICK, workers=4, progress=lambda *call: seen.append(call)
    )
    assert seen == [(i, 13) for i in range(1, 14)]
    assert list(outcomes) == faces
    assert [outcomes[face].status for face in faces] == [
        *["ok"] * 6,
        *["dead link"] * 3,
        *["wrong hash"] * 2,
        "not an image",
        "bad box",
    ]
    assert (out / "report.csv").read_text().splitlines() == [
        "person,ok,dead link,wrong hash,not an image,bad box,total",
        "Ada Lovelace,3,3,2,1,1,10",
        "Kurt Gödel,3,0,0,0,0,3",
    ]
    assert list(count_by_person(outcomes)) == ["Ada Lovelace", "Kurt Gödel"]
    rows = rows_csv(out)
    assert [r["status"] for r in rows] == [outcomes[face].status for face in faces]
    assert [r["detail"] for r in rows[6:9]] == [
        "HTTP 404",
        "larger than 200000 bytes",
        "neither http nor https",
    ]
    files = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    crops = {r["file"] for r in rows if r["file"]}
    assert files == {"rows.csv", "report.csv", *crops}
    for r in rows[:6]:
        crop = (out / r["file"]).read_bytes()
        assert hashlib.sha256(crop).hexdigest() == r["crop_sha256"]
        original = Image.open(io.BytesIO(image(int(r["face_id"])))).crop((5, 6, 25, 28))
        np.testing.assert_array_equal(np.asarray(Image.open(out / r["file"])), original)


def test_second_call_asks_for_nothing(server, served, tmp_path):
    faces = [*served, face(b"any", server.url("/404"), face_id=10)]
    first = prepare(faces, tmp_path, limits=QUICK)
    tables = [(tmp_path / name).read_bytes() for name in ("rows.csv", "report.csv")]
    server.requests.clear()
    assert prepare(faces, tmp_path, limits=QUICK) == first
    assert not server.requests
    assert tables == [
        (tmp_path / name).read_bytes() for name in ("rows.csv", "report.csv")
    ]


def test_missing_and_damaged_crops_are_fetched_again(server, served, tmp_path):
    prepare(served, tmp_path, limits=QUICK)
    contents = {face: (tmp_path / face.path).read_bytes() for face in served}
    (tmp_path / served[1].path).unlink()
    (tmp_path / served[2].path).write_bytes(contents[served[2]][:-1] + b"x")
    server.requests.clear()
    prepare(served, tmp_path, limits=QUICK)
    assert server.requests == {"/1.jpg": 1, "/2.jpg": 1}
    assert all((tmp_path / f.path).read_bytes() == contents[f] for f in served)


def test_failed_rows_are_asked_again_on_request_only(server, served, tmp_path):
    found = server.routes.pop("/0.jpg")
    assert prepare(served, tmp_path, limits=QUICK)[served[0]].status == "dead link"
    server.routes["/0.jpg"] = found
    server.requests.clear()
    assert prepare(served, tmp_path, limits=QUICK)[served[0]].detail == "HTTP 404"
    outcomes = prepare(served, tmp_path, limits=QUICK, retry_failed=True)
    assert outcomes[served[0]].status == "ok"
    assert server.requests == {"/0.jpg": 1}


def test_unreachable_hosts_are_remembered_only_where_there_is_a_network(
    server, served, tmp_path
):
    offline = face(b"any", unreachable_url(), face_id=10)
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / served[0].sha256).write_bytes(image(0))
    faces = [served[0], offline]
    outcomes = prepare(faces, tmp_path / "a", raw=raw, limits=QUICK)
    assert outcomes[offline] == Outcome("dead link", "no connection", final=False)
    outcomes = prepare([*served, offline], tmp_path / "a", limits=QUICK)
    assert outcomes[offline] == Outcome("dead link", "no connection", final=True)


def test_rows_after_giving_up_are_no_dead_links(server, served, tmp_path):
    """A network that comes up late: who was not asked is asked by the next call."""
    found = server.routes["/0.jpg"]
    others_settled = threading.Event()

    def late(handler: _Handler) -> None:
        others_settled.wait(10)
        found(handler)

    def progress(done: int, total: int) -> None:
        if done == total - 1:
            others_settled.set()

    server.routes["/0.jpg"] = late
    url = unreachable_url()
    gone = [face(b"any", url, face_id=i) for i in range(100, 140)]
    outcomes = prepare(
        [served[0], *gone],
        tmp_path,
        limits=Limits(tries=1),
        workers=2,
        progress=progress,
    )
    assert outcomes[served[0]].status == "ok"
    asked = [outcomes[face].final for face in gone]
    assert asked == [True] * 32 + [False] * 8


def test_raw_folder_comes_before_the_network(server, served, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for i, one in enumerate(served[:4]):
        (raw / one.sha256).write_bytes(image(i))
    (raw / served[3].sha256).write_bytes(b"not what its name says")
    outcomes = prepare(served, tmp_path / "out", raw=raw, download=False)
    assert [outcomes[face].status for face in served] == [
        *["ok"] * 3,
        *["dead link"] * 3,
    ]
    assert not outcomes[served[3]].final
    assert not server.requests
    prepare(served, tmp_path / "out", raw=raw, limits=QUICK)
    assert server.requests == {"/3.jpg": 1, "/4.jpg": 1, "/5.jpg": 1}


def test_kept_raw_files_serve_later_calls(server, served, tmp_path):
    prepare(served, tmp_path, keep_raw=True, limits=QUICK)
    for i, one in enumerate(served):
        assert (tmp_path / ".raw" / one.sha256).read_bytes() == image(i)
        (tmp_path / one.path).unlink()
    server.requests.clear()
    outcomes = prepare(served, tmp_path, limits=QUICK)
    assert {outcome.status for outcome in outcomes.values()} == {"ok"}
    assert not server.requests


def test_changed_row_is_cut_anew_and_replaces_the_old_one(server, served, tmp_path):
    prepare(served, tmp_path, limits=QUICK)
    changed = face(image(0), served[0].url, face_id=0, box=(0, 0, 8, 9))
    outcomes = prepare([changed, *served[1:]], tmp_path, limits=QUICK)
    assert set(outcomes) == {changed, *served[1:]}
    assert Image.open(tmp_path / changed.path).size == (8, 9)


def test_other_lists_faces_stay_in_the_tables(server, served, tmp_path):
    prepare(served[::2], tmp_path, limits=QUICK)
    outcomes = prepare(served[1::2], tmp_path, limits=QUICK)
    assert list(outcomes) == [*served[1::2], *served[::2]]
    assert len((tmp_path / "report.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_inside(served, tmp_path, name):
    out = tmp_path / "a" / "b" / "out"
    hostile = Face(name, *list(vars(served[0]).values())[1:])
    outcomes = prepare([hostile], out, limits=QUICK)
    assert outcomes[hostile].status == "ok"
    files = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {out / hostile.path, out / "rows.csv", out / "report.csv"}
    assert prepare([hostile], out, download=False) == outcomes


def test_rows_that_a_kill_cut_short_are_done_again(server, served, tmp_path):
    prepare(served, tmp_path, limits=QUICK)
    rows = (tmp_path / "rows.csv").read_bytes()
    for cut in range(len(rows) - 200, len(rows), 7):
        (tmp_path / "rows.csv").write_bytes(rows[:cut])
        prepare(served, tmp_path, limits=QUICK)
        assert (tmp_path / "rows.csv").read_bytes() == rows


def test_rows_that_are_no_table_are_refused_or_passed_over(server, served, tmp_path):
    (tmp_path / "rows.csv").write_bytes(b"nonsense\n1,2\n\xff\xfe\n")
    assert len(prepare(served, tmp_path, limits=QUICK)) == 6
    (tmp_path / "rows.csv").write_bytes(b'"' + b"x" * 200_000)
    with pytest.raises(InputError, match=r"rows\.csv: cannot be read.*remove it"):
        prepare(served, tmp_path, limits=QUICK)


def test_nothing_at_all_is_an_error_with_the_reason(server, tmp_path):
    gone = [face(b"any", server.url("/404"), face_id=i) for i in range(3)]
    with pytest.raises(InputError, match=r"no face .*dead link: 3.*`retry_failed`"):
        prepare(gone, tmp_path / "a", limits=QUICK)
    offline = [face(b"any", unreachable_url())]
    with pytest.raises(InputError, match=r"no network.*`raw`"):
        prepare(offline, tmp_path / "b", limits=QUICK)
    with pytest.raises(InputError, match=r"no network.*`raw`"):
        prepare(offline, tmp_path / "b", download=False)


def test_bad_flags_are_refused(served, tmp_path):
    file = tmp_path / "file"
    file.write_text("in the way")
    with pytest.raises(InputError, match=r"file \(.*choose another folder"):
        prepare(served, file)
    with pytest.raises(InputError, match=r"out \(.*choose another folder"):
        prepare(served, file / "out")
    with pytest.raises(InputError, match=r"`raw` .*gone: no such folder"):
        prepare(served, tmp_path / "out", raw=tmp_path / "gone")
    with pytest.raises(InputError, match="`workers` 0"):
        prepare(served, tmp_path / "out", workers=0)


def test_full_disk_is_an_error_and_loses_nothing(server, served, tmp_path, monkeypatch):
    replace = os.replace

    def full_at_the_third(source: Path, target: Path) -> None:
        if target.name == "3.png":
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr("jaxvision.storage.os.replace", full_at_the_third)
    with pytest.raises(InputError, match=r"can't write .* \(No space left"):
        prepare(served, tmp_path, workers=1, limits=QUICK)
    monkeypatch.undo()
    server.requests.clear()
    prepare(served, tmp_path, workers=1, limits=QUICK)
    assert server.requests.keys() <= {"/3.jpg", "/4.jpg", "/5.jpg"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_under_the_journal_is_one_line(server, served, tmp_path, monkeypatch):
    open_path = Path.open

    def full(path: Path, mode: str = "r", **options: Any) -> Any:
        if (path.name, mode) == ("rows.csv", "a"):
            path = Path("/dev/full")
        return open_path(path, mode, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(InputError, match=r"can't write into .* \(No space left"):
        prepare(served, tmp_path, workers=1, limits=QUICK)
    monkeypatch.undo()
    prepare(served, tmp_path, workers=1, limits=QUICK)
    assert {r["status"] for r in rows_csv(tmp_path)} == {"ok"}


# A process of its own, which is ended midway

PROGRAM = """
import sys
from pathlib import Path
from jaxvision.data.facescrub import FaceScrubConfig, prepare_facescrub
prepare_facescrub(FaceScrubConfig((Path(sys.argv[1]),), Path(sys.argv[2]), workers=2))
"""


def start(list_file: Path, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(list_file), str(out)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_call_that_was_ended_midway_is_completed_by_the_next(server, tmp_path, end):
    lines, ended = [], threading.Event()
    for i in range(24):
        content = image(i)

        def slowly(handler: _Handler, i: int = i, content: bytes = content) -> None:
            # The later ones leave time to end the process before it is done.
            ended.wait(0.05 if i < 12 else 1)
            answer(content)(handler)

        server.routes[f"/{i}.jpg"] = slowly
        lines.append(row(face(content, server.url(f"/{i}.jpg"), face_id=i)))
    (tmp_path / "list.txt").write_text("".join(lines), "utf-8")

    first = start(tmp_path / "list.txt", tmp_path / "out")
    while server.requests.total() < 8:
        assert first.poll() is None
        time.sleep(0.005)
    first.send_signal(end)
    _, errors = first.communicate(timeout=120)
    ended.set()
    assert first.returncode == -end
    assert ("KeyboardInterrupt" in errors) == (end == signal.SIGINT)
    assert 4 <= len(list((tmp_path / "out").rglob("*.png"))) < 24

    second = start(tmp_path / "list.txt", tmp_path / "out")
    _, errors = second.communicate(timeout=120)
    assert second.returncode == 0, errors
    # What was under way when the first ended may be asked for twice, nothing else.
    assert server.requests.total() <= 24 + 2
    assert {r["status"] for r in rows_csv(tmp_path / "out")} == {"ok"}
    assert len(rows_csv(tmp_path / "out")) == 24


def test_lists_are_prepared_around_malformed_lines(server, tmp_path):
    server.routes["/0.jpg"] = answer(image())
    faces = [face(image(), server.url("/0.jpg")), face(b"any", server.url("/404"))]
    faces[1] = dataclasses.replace(faces[1], face_id=2)
    path = tmp_path / "list.txt"
    path.write_text("".join(map(row, faces)) + "half a line\n", "utf-8")
    config = FaceScrubConfig((path,), tmp_path / "out", limits=QUICK)
    found = prepare_facescrub(config)
    assert [found.outcomes[one].status for one in faces] == ["ok", "dead link"]
    assert found.malformed == [f"{path}:3: 1 fields separated by tabs instead of 6"]
    config = dataclasses.replace(config, list=(tmp_path / "gone.txt",))
    with pytest.raises(InputError, match=r"gone\.txt: No such file"):
        prepare_facescrub(dataclasses.replace(config, out=tmp_path / "other"))
    assert not (tmp_path / "other").exists()


# Real rows


def test_real_faces(server, shared_data, tmp_path):
    folder = shared_data / "facescrub"
    lines = (folder / "subset_actors.txt").read_text("utf-8").splitlines()[::16]
    faces = []
    for line in lines:
        published = parse_row(line)
        path = f"/{published.sha256}"
        file = folder / "raw" / published.sha256
        if file.exists():
            server.routes[path] = answer(file.read_bytes())
        values = vars(published) | {"url": server.url(path)}
        faces.append(Face(**values))
    outcomes = prepare(faces, tmp_path, limits=Limits())
    expected = ["ok" if f"/{f.sha256}" in server.routes else "dead link" for f in faces]
    assert [outcomes[face].status for face in faces] == expected
    assert expected.count("ok") > 40
    for one in faces:
        if outcomes[one].status == "ok":
            x1, y1, x2, y2 = one.box
            assert Image.open(tmp_path / one.path).size == (x2 - x1, y2 - y1)


@pytest.mark.parametrize("name", ["report.csv", "Rows.CSV"])
def test_a_person_called_as_a_table_is_a_bad_row(name: str) -> None:
    row = f"{name}\t1\t2\thttp://x/y.jpg\t0,0,8,8\t{'0' * 64}"
    # `folder_name` keeps no dot at the end, but those within.
    with pytest.raises(ValueError, match="as a table is"):
        parse_row(row)
