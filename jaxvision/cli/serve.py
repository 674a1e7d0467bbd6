"""`jaxvision serve`: a page that shows what a trained network sees."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from jaxvision.cli.flags import Checkpoint, Root, run
from jaxvision.cli.process import keep_compiled
from jaxvision.config import Bounds, check


@dataclasses.dataclass(frozen=True)
class Config:
    """Opens a page on this machine to drop an image on: what the network says, and why.

    Prints the page's address, which holds a random token. Ctrl-C ends it.
    """

    checkpoint: Checkpoint
    """Folder of a training run, or of one of its seeds."""
    root: Root = None
    """Folder of the network's data set, where it has moved."""
    corrections: Path = Path("corrections.csv")
    """CSV that takes what is said of labels in the review; trainings take it by
    `--data.corrections`."""
    host: str = "127.0.0.1"
    """Where to listen; anything but this machine's own address lets others in who know
    the page's address."""
    port: Annotated[int, Bounds(0, 65535)] = 0
    """0: a free one."""


def main(arguments: Sequence[str]) -> None:
    run(Config, serve, arguments, "jaxvision serve", interrupted="ended")


def serve(config: Config) -> None:
    from jaxvision.serve import server

    check(config)
    keep_compiled()
    server.serve(
        config.checkpoint,
        root=config.root,
        corrections=config.corrections,
        host=config.host,
        port=config.port,
    )
