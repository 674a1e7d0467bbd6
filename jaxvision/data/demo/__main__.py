"""`python -m jaxvision.data.demo`: writes a built-in demo set as a folder."""

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

from jaxvision import storage
from jaxvision.data.demo import KINDS, NOTE, class_counts, contact_sheet, write_demo
from jaxvision.errors import exit_on_input_error
from jaxvision.report.progress import Progress


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m jaxvision.data.demo", description=f"Writes a demo set. {NOTE}"
    )
    parser.add_argument("--kind", choices=KINDS, default="faces", help="which set")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="a new or empty folder"
    )
    parser.add_argument(
        "--count",
        type=int,
        metavar="N",
        help="images of the largest class; the others keep their proportion",
    )
    parser.add_argument(
        "--size", type=int, metavar="S", help="width and height in pixels"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="K", help="another seed, other images"
    )
    parser.add_argument(
        "--processes", type=int, metavar="N", help="default: one a core, at most 8"
    )
    parser.add_argument(
        "--contact-sheet",
        type=Path,
        metavar="FILE.png",
        help="also write an image with a labeled row of examples a class",
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the set and says what is there."""
    args = _parse(arguments)
    with Progress("drawing") as progress:
        drawn = write_demo(
            args.kind,
            args.out,
            count=args.count,
            size=args.size,
            seed=args.seed,
            processes=args.processes,
            progress=progress,
        )
    counts = class_counts(args.kind, args.count)
    state = "drawn" if drawn else "already complete, nothing to do"
    print(
        f"{args.out}: {sum(counts.values())} images of {len(counts)} classes, {state}"
    )
    if args.contact_sheet:
        _write_sheet(args.out, args.contact_sheet)


def _write_sheet(root: Path, path: Path) -> None:
    content = io.BytesIO()
    contact_sheet(root).save(content, "PNG")
    storage.write_atomically(path, content.getvalue())
    print(path)


if __name__ == "__main__":
    try:
        with exit_on_input_error():
            main()
    except KeyboardInterrupt:
        print("interrupted: the same command completes the set")
        raise SystemExit(130) from None
