"""A folder with one subfolder per class: which images it has, and what it has besides.

Nothing is lost in silence: whatever is no image of a class is counted by kind, and a
folder that looks divided in a way that is not understood is refused.
"""

import dataclasses
import json
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from jaxvision.data.limits import MAX_DEPTH
from jaxvision.data.sniff import HEIC_FIX, HEIF, SUFFIXES, is_readable, read_head, sniff
from jaxvision.data.splits import SPLIT_NAMES
from jaxvision.errors import InputError
from jaxvision.storage import MANIFEST, cache_folder


@dataclasses.dataclass(frozen=True)
class FolderIndex:
    """What an image folder holds.

    Attributes:
      root: the folder.
      classes: names of the subfolders, sorted, in Unicode's composed form.
      images: paths relative to `root` with "/" between the parts, sorted within a
        class, classes in order.
      labels: index into `classes` for each image.
      ignored: how many entries were left out, by kind.
      parts: "train", "val" or "test" for each image, where the folder comes divided;
        else nothing.
      notes: what a person should know of the names, a sentence each.
    """

    root: Path
    classes: tuple[str, ...]
    images: tuple[str, ...]
    labels: tuple[int, ...]
    ignored: dict[str, int]
    parts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


MARKER = "DEMO.json"
"""What `jaxvision.data.demo` writes last into a folder that it draws."""

HIDDEN = "hidden files and folders"
SYSTEM = "files and folders of operating systems"
OWN = "folders that jaxvision wrote"
NO_IMAGES = "files that are no images"
OUTSIDE = "images outside any class"
BROKEN = "links that lead nowhere"
BACK = "links to folders that are searched anyway"
SPECIAL = "pipes, devices and sockets"
DEEP = "folders nested too deeply"
BESIDE = "folders without images beside the splits"
HEIC = f"HEIC images ({HEIC_FIX})"

_SYSTEM_TEXT = """
.ds_store __macosx .appledouble .lsoverride .spotlight-v100 .trashes .fseventsd
.temporaryitems .documentrevisions-v100 .volumeicon.icns .apdisk
thumbs.db ehthumbs.db ehthumbs_vista.db desktop.ini $recycle.bin recycler
picasa.ini .picasa.ini .picasaoriginals lost+found .thumbnails .directory .trash
.xvpics @eadir #recycle #snapshot @recycle @recently-snapshot .@__thumb @__thumb
.ipynb_checkpoints __pycache__
"""
_SYSTEM_NAMES = frozenset(_SYSTEM_TEXT.split()) | {
    "icon\r",
    "network trash folder",
    "temporary items",
    "system volume information",
}
"""Lower-case names of what systems and programs put beside people's files."""


def index_folder(root: Path) -> FolderIndex:
    """Lists the images under `root`: each subfolder is a class, searched in depth.

    Subfolders that are called as splits are (train, training, val, valid, validation,
    test, testing, in any case) and hold class folders divide the images; so do folders
    of these names within every class.

    A file is an image by its ending, or else by its first bytes. Links are followed,
    but for those that lead back. What systems, network disks and this package put
    beside images is no class.

    Raises:
      InputError: no such folder, no class, only one, a class without images, or splits
        that are not understood.
    """
    _check_folder(root)
    search = _Search(root)
    tops = search.top_folders()
    layout = _layout(root, tops, search.ignored)
    notes = [*layout.notes, *_notes(layout.classes)]
    if not layout.classes:
        raise InputError(
            f"{root}: no class in it{_also(search.ignored)}: put the images of each "
            "class into a subfolder of its name"
        )
    if len(layout.classes) == 1:
        raise InputError(
            f"{root}: only one class, {layout.classes[0]!r}: add a subfolder of images "
            "for each other class"
        )
    images: list[str] = []
    labels: list[int] = []
    parts: list[str] = []
    for label, name in enumerate(layout.classes):
        # The order of a sorted walk: by part of the path.
        found = sorted(layout.members[name], key=lambda item: item[0])
        images += [image for image, _ in found]
        parts += [part for _, part in found]
        labels += [label] * len(found)
    return FolderIndex(
        root,
        layout.classes,
        tuple(images),
        tuple(labels),
        dict(search.ignored),
        tuple(parts) if any(parts) else (),
        tuple(notes),
    )


def find_images(root: Path) -> tuple[list[str], dict[str, int]]:
    """All images below a folder, whatever its subfolders mean.

    What is ignored is that of `index_folder`.

    Returns:
      Paths relative to `root`, sorted; how much else there is, by kind.

    Raises:
      InputError: no such folder.
    """
    _check_folder(root)
    search = _Search(root)
    return sorted(search.everything()), dict(search.ignored)


def read_demo_marker(root: Path) -> dict[str, str] | None:
    """What `jaxvision.data.demo` wrote last into a folder that it drew."""
    marker = root / MARKER
    if not marker.is_file():
        return None
    try:
        return {"kind": str(json.loads(marker.read_text("utf-8"))["kind"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{marker}: damaged; remove the folder to have it drawn again"
        ) from error


def _check_folder(root: Path) -> None:
    if not root.exists():
        raise InputError(
            f"{root}: no such folder; give one that has one subfolder per class"
        )
    if not root.is_dir():
        raise InputError(
            f"{root}: is a file; give a folder that has one subfolder per class, or a "
            "CSV of labels"
        )


def _also(ignored: Mapping[str, int]) -> str:
    """What else there is, for an error."""
    found = ", ".join(f"{count} {kind}" for kind, count in ignored.items())
    return f" ({found})" if found else ""


# What lies there ---------------------------------------------------------------------


@dataclasses.dataclass
class _Top:
    """A subfolder of the root.

    images: relative to the root.
    folders: names of its own subfolders, without those that are ignored.
    ignored: what else is in it.
    """

    images: list[str]
    folders: list[str]
    ignored: Counter[str]

    @property
    def own_only(self) -> bool:
        """Whether there is nothing in it but what this package wrote."""
        return not self.images and bool(self.ignored[OWN]) and not self.folders

    def below(self, name: str) -> list[str]:
        """The images in one of its subfolders."""
        return [image for image in self.images if image.split("/")[1] == name]

    @property
    def loose(self) -> list[str]:
        """The images directly in it."""
        return [image for image in self.images if image.count("/") == 1]

    @property
    def nested(self) -> bool:
        """Whether it has subfolders with images."""
        return len(self.loose) < len(self.images)


class _Search:
    """Lists images; `ignored` counts what else is met."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ignored: Counter[str] = Counter()
        self._real_root = root.resolve()
        self._linked: set[tuple[int, int]] = set()
        try:
            self._cache = cache_folder().resolve()
        except (OSError, RuntimeError):  # nobody's home
            self._cache = None

    def everything(self) -> list[str]:
        return self._below(self.root, "", 0, self.ignored, [])

    def top_folders(self) -> dict[str, _Top]:
        """The root's subfolders by name; files beside them are ignored."""
        tops: dict[str, _Top] = {}
        for entry in sorted(self._entries(self.root), key=lambda entry: entry.name):
            if self._passed_over(entry, self.ignored):
                continue
            if not _is_dir(entry):
                if self._is_image(entry, self.ignored):
                    self.ignored[OUTSIDE] += 1
                continue
            self._linked.clear()
            if self._leads_back(entry):
                self.ignored[BACK] += 1
                continue
            ignored: Counter[str] = Counter()
            folders: list[str] = []
            images = self._below(
                Path(entry.path), f"{entry.name}/", 1, ignored, folders
            )
            self.ignored += ignored
            top = _Top(images, folders, ignored)
            if not top.own_only:
                tops[entry.name] = top
        return tops

    def _below(
        self,
        folder: Path,
        prefix: str,
        depth: int,
        ignored: Counter[str],
        folders: list[str],
    ) -> list[str]:
        """Images below a folder; the names of its subfolders are added to `folders`."""
        entries = self._entries(folder)
        if depth and self._is_own(folder, [entry.name for entry in entries]):
            ignored[OWN] += 1
            return []
        if depth > MAX_DEPTH:
            ignored[DEEP] += 1
            return []
        found = []
        for entry in entries:
            if self._passed_over(entry, ignored):
                continue
            if not _is_dir(entry):
                if self._is_image(entry, ignored):
                    found.append(prefix + entry.name)
            elif self._leads_back(entry):
                ignored[BACK] += 1
            else:
                own = ignored[OWN]
                inside = self._below(
                    Path(entry.path), f"{prefix}{entry.name}/", depth + 1, ignored, []
                )
                if inside or ignored[OWN] == own:
                    folders.append(entry.name)
                found += inside
        return found

    def _entries(self, folder: Path) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                return list(entries)
        except OSError as error:
            raise InputError(
                f"{folder}: cannot be listed ({error.strerror}): fix its permissions "
                "or give another folder"
            ) from error

    def _passed_over(self, entry: os.DirEntry[str], ignored: Counter[str]) -> bool:
        """Whether it is ignored for its name or its place."""
        name = entry.name.casefold()
        if name in _SYSTEM_NAMES or name.startswith(("._", ".trash-", ".nfs", "~$")):
            ignored[SYSTEM] += 1
        elif name.startswith("."):
            ignored[HIDDEN] += 1
        elif entry.is_symlink() and not os.path.exists(entry.path):
            ignored[BROKEN] += 1
        else:
            return False
        return True

    def _is_image(self, entry: os.DirEntry[str], ignored: Counter[str]) -> bool:
        """Whether a file, or a link to one, is an image that can be read."""
        if not entry.is_file():
            ignored[SPECIAL] += 1
            return False
        if entry.name == MARKER:
            # Ours, beside drawn images: nobody misses it.
            return False
        if os.path.splitext(entry.name)[1].lower() in SUFFIXES:
            return True
        try:
            kind = sniff(read_head(Path(entry.path)))
        except OSError:
            kind = ""
        if is_readable(kind):
            return True
        if kind == HEIF:
            ignored[HEIC] += 1
        else:
            ignored[f"{kind} images, which are not read" if kind else NO_IMAGES] += 1
        return False

    def _leads_back(self, entry: os.DirEntry[str]) -> bool:
        """Whether a link to a folder leads where is searched anyway, or has been."""
        if not entry.is_symlink():
            return False
        target = Path(entry.path).resolve()
        if self._real_root.is_relative_to(target):
            return True
        if target.is_relative_to(self._real_root):
            # What is hidden is reached by links alone, as in caches of data sets.
            parts = target.relative_to(self._real_root).parts
            if not any(part.startswith(".") for part in parts):
                return True
        status = target.stat()
        identity = status.st_dev, status.st_ino
        if identity in self._linked:
            return True
        self._linked.add(identity)
        return False

    def _is_own(self, folder: Path, names: Sequence[str]) -> bool:
        """Whether this package wrote the folder: a drawn or prepared set, a run, a
        checkpoint or the cache."""
        held = set(names)
        if MARKER in held:
            return True
        if MANIFEST in held and _begins_with(folder / MANIFEST, _PREPARED):
            return True
        trained = any(name.startswith(("best-", "last-", "seed-")) for name in held)
        if "card.json" in held and (trained or "splits.csv" in held):
            return True
        if "config.json" in held and (trained or held & _RUN_FILES):
            return True
        return self._cache is not None and folder.resolve() == self._cache


_PREPARED = '"jaxvision prepared images"'
_RUN_FILES = frozenset({"report.md", "results.json", "history.csv"})


def _begins_with(path: Path, text: str) -> bool:
    """Whether the first bytes of a file hold a text."""
    try:
        return text.encode() in read_head(path)
    except OSError:
        return False


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links that lead to themselves
        return False


# What it means -----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Layout:
    """The classes, and for each its images with their split, which may be none."""

    classes: tuple[str, ...]
    members: Mapping[str, list[tuple[str, str]]]
    notes: tuple[str, ...] = ()


_LOOKS_LIKE_A_SPLIT = re.compile(
    r"(train|val|test|dev|eval|holdout|unseen)(ing|id|idation|uation|elopment)?"
    r"[ _.-]?(set|sets|data|images|imgs|split|folder|fold)?[ _.-]?\d*"
)


def _split_of(name: str) -> str | None:
    return SPLIT_NAMES.get(name.strip().casefold())


def _look_of(name: str) -> str | None:
    """train, val, test, ... for a name that looks like a split."""
    match = _LOOKS_LIKE_A_SPLIT.fullmatch(name.strip().casefold())
    return match[1] if match else None


def _layout(root: Path, tops: Mapping[str, _Top], ignored: Counter[str]) -> _Layout:
    """Classes and splits by the names of folders, or an error that names the fix."""
    named = {name: split for name in tops if (split := _split_of(name))}
    looks = [
        n for n, top in tops.items() if n not in named and top.images and _look_of(n)
    ]
    others = [n for n, top in tops.items() if n not in named and top.images]
    if len(named) > 1 or (named and looks):
        return _divided(root, tops, named, looks, others, ignored)
    if len({_look_of(name) for name in looks}) > 1:
        raise _not_understood(root, looks)
    if named:
        ((only, _),) = named.items()
        top = tops[only]
        if top.nested and not top.loose:
            if not others:
                note = f"{only!r} is the only split: its images are divided anew"
                return dataclasses.replace(_classes_in(root, top, only), notes=(note,))
            if any(tops[name].loose for name in others):
                raise InputError(
                    f"{root}: {only!r} looks like a split with classes in it, but "
                    f"{others[0]!r} beside it holds images: move one of them away, or "
                    "rename it"
                )
    return _plain(root, tops)


def _divided(
    root: Path,
    tops: Mapping[str, _Top],
    named: Mapping[str, str],
    looks: Sequence[str],
    others: Sequence[str],
    ignored: Counter[str],
) -> _Layout:
    """Of a folder whose subfolders are splits."""
    if looks:
        raise _not_understood(root, [*named, *looks])
    for name, split in named.items():
        if (first := next(n for n, s in named.items() if s == split)) != name:
            raise InputError(
                f"{root}: {first!r} and {name!r} both mean {split}: move them together"
            )
    flat = [name for name in named if tops[name].loose and not tops[name].nested]
    if flat:
        count = len(tops[flat[0]].loose)
        raise InputError(
            f"{root}: {flat[0]!r} looks like a split, but its {count} images lie in no "
            "class folder: give it one subfolder per class, move it away, or give a "
            "CSV of labels"
        )
    if others:
        raise InputError(
            f"{root}: {others[0]!r} with images lies beside the splits "
            f"{', '.join(named)}: call it train, val or test, or move it away"
        )
    if len(tops) > len(named):
        ignored[BESIDE] += len(tops) - len(named)
    members: dict[str, list[tuple[str, str]]] = defaultdict(list)
    folders: dict[str, str] = {}
    for name, split in named.items():
        top = tops[name]
        if loose := len(top.loose):
            ignored[OUTSIDE] += loose
        for folder in top.folders:
            members[_composed(folder)] += [(i, split) for i in top.below(folder)]
            folders[_composed(folder)] = folder
    train = next((name for name, split in named.items() if split == "train"), None)
    for name, found in members.items():
        if train is not None and not any(split == "train" for _, split in found):
            raise _empty(root / train / folders[name], tops[train].ignored)
        if not found:
            raise _empty(root / next(iter(named)) / folders[name], Counter())
    return _Layout(tuple(sorted(members)), members)


def _classes_in(root: Path, top: _Top, name: str) -> _Layout:
    """Of the only split."""
    members: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for folder in top.folders:
        found = [(image, "") for image in top.below(folder)]
        if not found:
            raise _empty(root / name / folder, Counter())
        members[_composed(folder)] += found
    return _Layout(tuple(sorted(members)), members)


def _plain(root: Path, tops: Mapping[str, _Top]) -> _Layout:
    """Of a folder whose subfolders are classes, perhaps with splits in each of them."""
    members: dict[str, list[tuple[str, str]]] = defaultdict(list)
    notes = []
    within = _splits_within(root, tops)
    for name, top in tops.items():
        if not top.images:
            raise _empty(root / name, top.ignored)
        composed = _composed(name)
        if composed in members:
            notes.append(f"class {composed!r} is two folders in two Unicode forms")
        members[composed] += [
            (image, SPLIT_NAMES[image.split("/")[1].casefold()] if within else "")
            for image in top.images
        ]
    return _Layout(tuple(sorted(members)), members, tuple(notes))


def _splits_within(root: Path, tops: Mapping[str, _Top]) -> bool:
    """Whether every class is divided by folders of its own."""
    of = {
        name: [
            _split_of(image.split("/")[1]) if image.count("/") > 1 else None
            for image in top.images
        ]
        for name, top in tops.items()
    }
    found = {split for splits in of.values() for split in splits if split}
    if len(found) < 2:
        return False
    for name, splits in of.items():
        if not all(splits):
            raise InputError(
                f"{root}: classes have folders for {', '.join(sorted(found))}, but "
                f"{name!r} has images outside them: divide all classes so, or none"
            )
        if "train" in found and "train" not in splits:
            raise InputError(
                f"{root}: class {name!r} has no training images: add some, or remove it"
            )
    return True


def _notes(classes: Iterable[str]) -> list[str]:
    """Names that differ in nothing that people see at once."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        alike[name.casefold().strip()].append(name)
    return [
        f"classes {', '.join(map(repr, names))} differ only in case or spaces"
        for names in alike.values()
        if len(names) > 1
    ]


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _empty(folder: Path, ignored: Mapping[str, int]) -> InputError:
    return InputError(
        f"{folder}: an empty class, no image in it{_also(ignored)}: add images or "
        "remove the folder"
    )


def _not_understood(root: Path, names: Sequence[str]) -> InputError:
    listed = ", ".join(map(repr, names))
    return InputError(
        f"{root}: {listed} look like splits that are not understood: call them train, "
        "val and test, or give a CSV of labels"
    )
