"""FaceScrub: from its list of addresses to an image folder, one subfolder per person.

FaceScrub (Ng and Winkler, "A data-driven approach to cleaning large face datasets",
ICIP 2014, http://vintage.winklerbros.net/facescrub.html) publishes no images but a
list: per line, tab-separated, name, image id, face id, address, box x1,y1,x2,y2 and
the SHA-256 of the file. Many addresses are dead by now and many answer with something
else, so that every file is checked against its hash before anything looks inside.

Below the output folder lie `<person>/<face id>.png` and two tables: `report.csv`, the
counts a person, and `rows.csv`, what came of every row. `rows.csv` is also the memory
from one call to the next: it grows by a line whenever a face is settled, so that a
call that was killed goes on where it ended.
"""

import csv
import dataclasses
import hashlib
import io
import re
import threading
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal, TextIO, get_args

from PIL import Image

from jaxvision.config import Bounds, check
from jaxvision.data.decode import open_image
from jaxvision.data.fetch import Downloader, FetchError, Limits, NoNetwork
from jaxvision.errors import InputError
from jaxvision.storage import (
    csv_cell,
    csv_text,
    remove_leftovers,
    write_atomically,
    writing,
)
from jaxvision.typing import Progress

Status = Literal["ok", "dead link", "wrong hash", "not an image", "bad box"]
"""ok: the crop is there. dead link: no file could be had. wrong hash: a file, but not
the published one. not an image: the published file, but it cannot be decoded. bad
box: the box has no area or reaches outside the image."""

STATUSES: tuple[Status, ...] = get_args(Status)
Box = tuple[int, int, int, int]

_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
_LONGEST_NAME = 200
_LONGEST_URL = 8192
_RAW = ".raw"
_TABLES = frozenset({"rows.csv", "report.csv"})
"""Files beside the people's folders."""


@dataclasses.dataclass(frozen=True)
class Face:
    """A row of the list."""

    name: str
    image_id: int
    face_id: int
    url: str
    box: Box
    """x1, y1, x2, y2 in pixels of the file as stored; x2 and y2 are exclusive."""
    sha256: str
    """Of the image's file, in lower-case hexadecimal."""

    @property
    def path(self) -> Path:
        """Where its crop lies below the output folder."""
        return Path(folder_name(self.name)) / f"{self.face_id}.png"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a row."""

    status: Status
    detail: str = ""
    """The reason in a few words; empty for ok."""
    final: bool = True
    """False where no server was asked or none could be reached: the next call asks
    again. Whatever is final is asked again only on request."""
    crop_sha256: str = ""
    """Of the written crop; empty unless ok."""


class Unusable(Exception):
    """A row without a crop; `outcome` says why."""

    def __init__(self, status: Status, detail: str, *, final: bool = True) -> None:
        super().__init__(f"{status}: {detail}")
        self.outcome = Outcome(status, detail, final)


# The list ---------------------------------------------------------------------------


def read_lists(paths: Sequence[Path]) -> tuple[list[Face], list[str]]:
    """The rows of one or more lists, in order, each once.

    Blank lines and a header line are passed over.

    Returns:
      The rows, and for each malformed line `<file>:<line number>: <reason>`.

    Raises:
      InputError: a list is missing or unreadable, or there is no valid row at all.
    """
    faces: dict[Path, Face] = {}
    malformed = []
    for path in paths:
        for number, line in enumerate(_lines(path), start=1):
            if not line.strip() or _is_header(line):
                continue
            try:
                face = parse_row(line)
                if faces.setdefault(face.path, face) != face:
                    raise ValueError(f"face {face.face_id} stands in an earlier row")
            except ValueError as error:
                malformed.append(f"{path}:{number}: {error}")
    if not faces:
        named = ", ".join(map(str, paths)) or "`list`"
        raise InputError(
            f"{named}: no row of a FaceScrub list (name, image id, face id, address, "
            "x1,y1,x2,y2, SHA-256, separated by tabs); give a list of them"
        )
    return list(faces.values()), malformed


def parse_row(line: str) -> Face:
    """A line of the list; ValueError says what is wrong with it."""
    fields = [field.strip() for field in line.split("\t")]
    if len(fields) != 6:
        raise ValueError(f"{len(fields)} fields separated by tabs instead of 6")
    name, image_id, face_id, url, box, sha256 = fields
    if not name or len(name) > _LONGEST_NAME or not name.isprintable():
        raise ValueError("the name is empty, endless or holds unprintable characters")
    for what, value in (("image id", image_id), ("face id", face_id)):
        if not re.fullmatch(r"[0-9]{1,12}", value):
            raise ValueError(f"the {what} is no number")
    if not re.fullmatch(r"\s*,\s*".join([r"-?[0-9]{1,6}"] * 4), box):
        raise ValueError("the box is not x1,y1,x2,y2")
    if len(url) > _LONGEST_URL:
        raise ValueError(f"an address of more than {_LONGEST_URL} characters")
    if not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise ValueError("the SHA-256 is not 64 hexadecimal digits")
    if folder_name(name).casefold() in _TABLES:
        raise ValueError(f"a person called {name!r}, as a table is")
    x1, y1, x2, y2 = map(int, box.split(","))
    return Face(
        name, int(image_id), int(face_id), url, (x1, y1, x2, y2), sha256.lower()
    )


def folder_name(name: str) -> str:
    """A person's name as the name of one folder, the same string where that is safe.

    A name that had to be changed gets a piece of its hash, so that no two people
    share a folder.
    """
    safe = "".join(c if c.isalnum() or c in " .,'()_-" else "_" for c in name)
    safe = safe.strip(" .")[:50].rstrip(" .")
    if safe == name:
        return name
    return f"{safe or 'person'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text("utf-8-sig", errors="replace")
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror or error}; give a list of FaceScrub as `list`"
        ) from error
    return text.split("\n")


def _is_header(line: str) -> bool:
    first, second, *_ = [*line.split("\t"), ""]
    return first.strip().lower() == "name" and not second.strip().isdecimal()


# One face ---------------------------------------------------------------------------


def crop_face(content: bytes, box: Box) -> Image.Image:
    """The image in `content` cut to `I[y1:y2, x1:x2]`, in a mode that PNG holds.

    The box counts pixels as the file stores them, so that an EXIF orientation is
    neither applied nor kept: it was drawn with software that knew nothing of it. (Of
    the 760 images of six people at hand, none has an orientation other than
    upright.) A box that reaches outside by even one pixel is refused and not clipped:
    the file is the published one to the bit, so that the row itself must be wrong.

    Raises:
      Unusable: "not an image" or "bad box".
    """
    try:
        image, _, _ = open_image(content, None)
    # Pillow's parsers raise what they happen to raise on a damaged file: here each
    # means the same, and the class says more than the message.
    except Exception as error:
        raise Unusable("not an image", type(error).__name__) from error
    x1, y1, x2, y2 = box
    if not (0 <= x1 < x2 <= image.width and 0 <= y1 < y2 <= image.height):
        raise Unusable("bad box", f"not inside {image.width}×{image.height}")
    crop = image.crop(box)
    return crop if crop.mode in _PNG_MODES else crop.convert("RGB")


def encode_crop(crop: Image.Image) -> bytes:
    """A crop as PNG: the pixels of the published file and no second JPEG loss.

    That costs three times the bytes of JPEG at quality 95 (73 KB against 23 KB a
    face); compression level 3 gives files 3 % larger than level 6 in a third of the
    time.
    """
    buffer = io.BytesIO()
    crop.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


# All faces --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class FaceScrubConfig:
    """Which lists to prepare, where, and how to get the files."""

    list: tuple[Path, ...]
    """Lists as FaceScrub publishes them: name, image id, face id, address, box and
    SHA-256, separated by tabs."""
    out: Path = Path("data/facescrub")
    """Image folder to write, one subfolder per person."""
    raw: Path | None = None
    """Folder of files named by their SHA-256, looked into before the network."""
    keep_raw: bool = False
    """Keep downloaded files in OUT/.raw, where later calls look as well."""
    download: bool = True
    """Use the network for what `raw` does not hold."""
    retry_failed: bool = False
    """Ask again for what failed in an earlier call. By default dead links are
    remembered; where no server at all could be reached, nothing is."""
    workers: Annotated[int, Bounds(1)] = 16
    """Downloads at the same time."""
    limits: Limits = Limits()
    """Bounds for each download."""


@dataclasses.dataclass(frozen=True)
class PreparedFaces:
    """What `prepare_facescrub` left behind.

    outcomes: of every row: first those of the lists, then rows of other lists that
        earlier calls prepared in the same folder.
    malformed: `<file>:<line number>: <reason>` of each line that is no row.
    """

    outcomes: Mapping[Face, Outcome]
    malformed: Sequence[str]


def prepare_facescrub(
    config: FaceScrubConfig, *, progress: Progress | None = None
) -> PreparedFaces:
    """Downloads, verifies and crops the faces of lists that are not there yet.

    Args:
      config: which, where and how.
      progress: told in this thread (rows done, rows in all).

    Raises:
      InputError: a list has no valid row or cannot be read, `out` cannot be written,
        `raw` is no folder, or no face could be had.
    """
    check(config)
    faces, malformed = read_lists(config.list)
    return PreparedFaces(prepare_faces(faces, config, progress=progress), malformed)


def prepare_faces(
    faces: Sequence[Face],
    config: FaceScrubConfig,
    *,
    progress: Progress | None = None,
) -> dict[Face, Outcome]:
    """The same of rows that have been read; gives the `outcomes`."""
    check(config)
    out, raw = config.out, config.raw
    if raw is not None and not raw.is_dir():
        raise InputError(
            "no such folder; give that of the files", setting="raw", value=raw
        )
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    run = _Preparation(
        out,
        raw_folders=[out / _RAW] if raw is None else [raw, out / _RAW],
        keep_raw=config.keep_raw,
        downloader=Downloader(config.limits) if config.download else None,
        retry_failed=config.retry_failed,
        earlier=_read_rows(out / "rows.csv"),
    )
    with warnings.catch_warnings():
        # Such images are refused, which says it better than Pillow's warning.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        outcomes = run.prepare(faces, config.workers, progress)
    if not any(outcomes[face].status == "ok" for face in faces):
        raise InputError(_nothing_to_use(out, [outcomes[face] for face in faces]))
    return outcomes


@dataclasses.dataclass
class _Preparation:
    """One call of `prepare_faces`; its threads meet in `_settle`."""

    out: Path
    raw_folders: list[Path]
    keep_raw: bool
    downloader: Downloader | None
    retry_failed: bool
    earlier: dict[Face, Outcome]
    unreachable: set[Face] = dataclasses.field(default_factory=set)
    """Rows whose servers could not be reached: dead if others could."""
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def prepare(
        self,
        faces: Sequence[Face],
        workers: int,
        progress: Progress | None,
    ) -> dict[Face, Outcome]:
        asked = {face.path: face for face in faces}
        # A row that the list has since changed is another row, with the same crop.
        kept = {f: o for f, o in self.earlier.items() if asked.get(f.path, f) == f}
        settled: dict[Face, Outcome] = {}
        for folder in (self.out, *(p for p in self.out.glob("*") if p.is_dir())):
            remove_leftovers(folder)
        _write_tables(self.out, kept)
        with (
            writing(self.out),  # also what is written when the journal is closed
            (self.out / "rows.csv").open("a", encoding="utf-8", newline="") as journal,
            ThreadPoolExecutor(workers) as pool,
        ):
            futures = [
                pool.submit(self._settle, face, settled, journal) for face in faces
            ]
            try:
                for done, future in enumerate(as_completed(futures), start=1):
                    future.result()
                    if progress is not None:
                        progress(done, len(futures))
            except BaseException:
                # Ctrl-C or a full disk: nothing new begins, transfers are given up.
                if self.downloader:
                    self.downloader.stop()
                pool.shutdown(cancel_futures=True)
                raise
        if self.downloader and self.downloader.reached:
            for face in self.unreachable:
                settled[face] = dataclasses.replace(settled[face], final=True)
        outcomes = {face: settled[face] for face in faces}
        outcomes |= {f: o for f, o in kept.items() if f not in settled}
        _write_tables(self.out, outcomes)
        return outcomes

    def _settle(
        self, face: Face, settled: dict[Face, Outcome], journal: TextIO
    ) -> Outcome:
        earlier = self.earlier.get(face)
        outcome = self._outcome(face, earlier)
        with self.lock, writing(self.out):
            settled[face] = outcome
            if outcome != earlier:
                _write_csv(journal, [_to_csv(face, outcome)])
                journal.flush()
        return outcome

    def _outcome(self, face: Face, earlier: Outcome | None) -> Outcome:
        if earlier and earlier.status == "ok" and self._is_intact(face, earlier):
            return earlier
        try:
            crop = encode_crop(crop_face(self._content(face, earlier), face.box))
        except Unusable as error:
            return error.outcome
        path = self.out / face.path
        with writing(path.parent):
            path.parent.mkdir(exist_ok=True)
        write_atomically(path, crop)
        return Outcome("ok", crop_sha256=hashlib.sha256(crop).hexdigest())

    def _is_intact(self, face: Face, earlier: Outcome) -> bool:
        try:
            content = (self.out / face.path).read_bytes()
        except OSError:
            return False
        return hashlib.sha256(content).hexdigest() == earlier.crop_sha256

    def _content(self, face: Face, earlier: Outcome | None) -> bytes:
        """The published file: from a raw folder, else from the network."""
        for folder in self.raw_folders:
            path = folder / face.sha256
            if path.is_file():
                try:
                    content = path.read_bytes()
                except OSError as error:
                    raise InputError(
                        f"{path}: cannot be read ({error.strerror}); fix its "
                        "permissions or remove it"
                    ) from error
                if hashlib.sha256(content).hexdigest() == face.sha256:
                    return content
        remembered = None if self.retry_failed else earlier
        if remembered and remembered.status != "ok" and remembered.final:
            raise Unusable(remembered.status, remembered.detail)
        if self.downloader is None:
            raise Unusable("dead link", "not downloaded", final=False)
        try:
            content = self.downloader.fetch(face.url)
        except FetchError as error:
            if error.unreachable and not isinstance(error, NoNetwork):
                self.unreachable.add(face)
            raise Unusable(
                "dead link", str(error), final=not error.unreachable
            ) from error
        if hashlib.sha256(content).hexdigest() != face.sha256:
            raise Unusable("wrong hash", f"{len(content)} bytes of something else")
        if self.keep_raw:
            path = self.out / _RAW / face.sha256
            with writing(path.parent):
                path.parent.mkdir(exist_ok=True)
            write_atomically(path, content)
        return content


def _nothing_to_use(out: Path, outcomes: Sequence[Outcome]) -> str:
    counts = [f"{s}: {n}" for s, n in count_by_status(outcomes).items() if n]
    message = f"{out}: no face could be had ({', '.join(counts)}); "
    if any(outcome.final for outcome in outcomes):
        return message + "rows.csv there gives the reasons; try `retry_failed`"
    return message + (
        "no network? connect and call again, or give the folder of the files as `raw`"
    )


# Files ------------------------------------------------------------------------------

_ROW_FIELDS = (
    *("name", "image_id", "face_id", "url", "box", "sha256"),
    *("status", "detail", "final", "file", "crop_sha256"),
)


def count_by_status(outcomes: Iterable[Outcome]) -> dict[Status, int]:
    """How many rows came to each status, in the order of `STATUSES`."""
    counts = dict.fromkeys(STATUSES, 0)
    for outcome in outcomes:
        counts[outcome.status] += 1
    return counts


def count_by_person(
    outcomes: Mapping[Face, Outcome],
) -> dict[str, dict[Status, int]]:
    """The same for each person, by name in alphabetical order."""
    people: dict[str, list[Outcome]] = {}
    for face, outcome in outcomes.items():
        people.setdefault(face.name, []).append(outcome)
    return {name: count_by_status(people[name]) for name in sorted(people)}


def _write_tables(out: Path, outcomes: Mapping[Face, Outcome]) -> None:
    """Writes `rows.csv` and `report.csv`, each atomically."""
    rows = (_to_csv(face, outcome) for face, outcome in outcomes.items())
    report = (
        [name, *counts.values(), sum(counts.values())]
        for name, counts in count_by_person(outcomes).items()
    )
    tables = {
        "rows.csv": (_ROW_FIELDS, rows),
        "report.csv": (("person", *STATUSES, "total"), report),
    }
    for name, (header, lines) in tables.items():
        buffer = io.StringIO(newline="")
        _write_csv(buffer, [header, *lines])
        write_atomically(out / name, buffer.getvalue().encode())


def _write_csv(file: TextIO, rows: Iterable[Sequence[object]]) -> None:
    file.write(csv_text(rows))


def _to_csv(face: Face, outcome: Outcome) -> list[str]:
    return [
        *(face.name, str(face.image_id), str(face.face_id), face.url),
        *(",".join(map(str, face.box)), face.sha256),
        *(outcome.status, outcome.detail, "yes" if outcome.final else "no"),
        face.path.as_posix() if outcome.status == "ok" else "",
        outcome.crop_sha256,
    ]


def _read_rows(path: Path) -> dict[Face, Outcome]:
    """What earlier calls wrote; a line that a kill cut short is done again."""
    if not path.exists():
        return {}
    try:
        text = path.read_text("utf-8", errors="replace")
        rows = list(csv.reader(io.StringIO(text, newline="")))
    except (OSError, csv.Error) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); remove it to begin anew"
        ) from error
    outcomes = {}
    for row in rows:
        with suppress(ValueError):
            face, outcome = _from_csv([csv_cell(cell) for cell in row])
            outcomes[face] = outcome
    return outcomes


def _from_csv(row: Sequence[str]) -> tuple[Face, Outcome]:
    """The inverse of `_to_csv`; ValueError for anything else, the header included."""
    if len(row) != len(_ROW_FIELDS):
        raise ValueError(f"{len(row)} fields")
    status, detail, final, _, crop_sha256 = row[6:]
    if status not in STATUSES:
        raise ValueError(f"status {status}")
    return parse_row("\t".join(row[:6])), Outcome(
        status, detail, final == "yes", crop_sha256
    )
