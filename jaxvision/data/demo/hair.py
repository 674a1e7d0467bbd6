"""Hair styles, each in two layers: behind the head and over it."""

from collections.abc import Callable

import numpy as np

from jaxvision.data.demo.canvas import Points, curve, ellipse, points, shade
from jaxvision.data.demo.sitter import Sitter


def crown(sitter: Sitter, grow: float, start: float = 180, end: float = 360) -> Points:
    """An arc around the skull, `grow` times its size, from left to right."""
    width = sitter.person.width * grow
    return ellipse((0, -0.12), width, 0.88 * grow, start=start, end=end, corners=40)


def _cap(sitter: Sitter, grow: float, hairline: Points, reach: float = 0.0) -> None:
    """Hair between an arc around the skull and a hairline from right to left.

    `reach` is how many degrees the arc goes below the ears' height.
    """
    outer = sitter.flat(crown(sitter, grow, 180 - reach, 360 + reach))
    inner = sitter.on_face(curve(hairline, steps=5))
    outline = np.concatenate([outer, inner])
    sitter.canvas.fill(outline, sitter.person.hair_color, solid=True)
    _strands(sitter, grow)


def _strands(sitter: Sitter, grow: float) -> None:
    """A few lighter and darker lines along the top of the head."""
    color = sitter.person.hair_color
    for share, factor in ((0.9, 1.16), (0.97, 0.72), (0.84, 0.78)):
        arc = crown(sitter, grow * share, 215, 325)
        sitter.canvas.line(
            sitter.flat(arc, 0.1),
            shade(color, factor),
            [0, 0.03 * sitter.pose.scale, 0],
            alpha=0.5,
        )


def _fall(sitter: Sitter, half: Points, *, ripple: float = 0.0) -> None:
    """Hair behind the head: its right edge from the crown down, mirrored."""
    edge = curve(half, steps=14)
    if ripple:
        wave = np.sin(np.linspace(0, 7 * np.pi, len(edge)))
        edge = edge + np.stack([ripple * wave, np.zeros_like(wave)], 1)
    outline = np.concatenate([edge, edge[::-1] * [-1, 1]])
    color = shade(sitter.person.hair_color, 0.78)
    sitter.canvas.fill(sitter.flat(outline, -0.3), color, solid=True)


def _locks(
    sitter: Sitter, centers: Points, radius: float, *, depth: float = 0.0
) -> None:
    """Round tufts: curls, an afro's edge, a braid's links."""
    scale = sitter.pose.scale
    placed = sitter.flat(centers, depth)
    color = sitter.person.hair_color
    for i, center in enumerate(placed):
        tone = shade(color, (1.0, 1.1, 0.84)[i % 3])
        sitter.canvas.dot(center, radius * scale, tone, solid=True)
    for center in placed:
        shine = center - 0.3 * radius * scale
        sitter.canvas.dot(shine, 0.35 * radius * scale, shade(color, 1.22), alpha=0.4)


def _no_hair(sitter: Sitter) -> None:
    del sitter


def _high_hairline(sitter: Sitter, height: float = -0.68) -> Points:
    w = sitter.person.width
    return points(
        (w, -0.1), (0.86 * w, -0.4), (0.5 * w, height + 0.06), (0, height),
        (-0.5 * w, height + 0.06), (-0.86 * w, -0.4), (-w, -0.1),
    )  # fmt: skip


def _parted_hairline(sitter: Sitter, low: float) -> Points:
    """Parted in the middle; the curtains end at y = `low`."""
    w = sitter.person.width
    return points(
        (1.06 * w, low), (0.8 * w, low - 0.35), (0.6 * w, -0.5), (0, -0.86),
        (-0.6 * w, -0.5), (-0.8 * w, low - 0.35), (-1.06 * w, low),
    )  # fmt: skip


def _bun_back(sitter: Sitter) -> None:
    color = sitter.person.hair_color
    knot = ellipse((0, -1.2), 0.36, 0.32)
    sitter.canvas.fill(sitter.flat(knot, -0.2), shade(color, 0.9), solid=True)
    swirl = ellipse((0.02, -1.22), 0.2, 0.17, start=150, end=400, corners=16)
    width = 0.05 * sitter.pose.scale
    sitter.canvas.line(sitter.flat(swirl, -0.2), shade(color, 0.68), [0, width, 0])


def _bun_front(sitter: Sitter) -> None:
    _cap(sitter, 1.07, _high_hairline(sitter))


def _side_part_front(sitter: Sitter) -> None:
    w = sitter.person.width
    hairline = points(
        (w, 0.0), (0.9 * w, -0.36), (0.5 * w, -0.46), (-0.1, -0.56),
        (-0.45 * w, -0.78), (-0.66 * w, -0.62), (-0.9 * w, -0.36), (-w, 0.0),
    )  # fmt: skip
    _cap(sitter, 1.11, hairline)
    w = sitter.person.width
    part = curve(points((-0.45 * w, -0.78), (-0.46 * w, -0.92), (-0.36 * w, -1.03)))
    width = 0.03 * sitter.pose.scale
    color = shade(sitter.person.hair_color, 0.6)
    sitter.canvas.line(sitter.on_face(part), color, width)


def _afro_back(sitter: Sitter) -> None:
    halo = ellipse((0, -0.42), sitter.person.width + 0.48, 1.0)
    color = sitter.person.hair_color
    sitter.canvas.fill(sitter.flat(halo, -0.2), color, solid=True)
    rim = ellipse((0, -0.42), sitter.person.width + 0.44, 0.96, corners=26)
    _locks(sitter, rim, 0.16, depth=-0.2)


def _afro_front(sitter: Sitter) -> None:
    _cap(sitter, 1.06, _high_hairline(sitter, -0.6))


def _tonsure_back(sitter: Sitter) -> None:
    for side in (-1, 1):
        x = side * sitter.person.width
        tufts = points((x, -0.28), (1.08 * x, -0.1), (1.05 * x, 0.1), (x, -0.42))
        _locks(sitter, tufts, 0.15, depth=-0.1)


def _tonsure_front(sitter: Sitter) -> None:
    shine = sitter.on_face(ellipse((-0.2, -0.68), 0.2, 0.09))
    sitter.skin(shine, 1.5, alpha=0.6)


def _braids_back(sitter: Sitter) -> None:
    x = sitter.person.width
    along = curve(points((x, 0.1), (1.16 * x, 0.6), (1.14 * x, 1.1), (1.0 * x, 1.6)))
    for side in (-1, 1):
        chain = along[::2] * [side, 1]
        _locks(sitter, chain, 0.165, depth=-0.1)
        tie = sitter.flat(along[-3:-2] * [side, 1], -0.1)[0]
        sitter.canvas.dot(tie, 0.12 * sitter.pose.scale, (186, 60, 70), solid=True)


def _braids_front(sitter: Sitter) -> None:
    _cap(sitter, 1.08, _parted_hairline(sitter, 0.1))


def _buzz_front(sitter: Sitter) -> None:
    w = sitter.person.width
    hairline = points(
        (0.98 * w, -0.05), (0.82 * w, -0.3), (0.74 * w, -0.58), (0, -0.64),
        (-0.74 * w, -0.58), (-0.82 * w, -0.3), (-0.98 * w, -0.05),
    )  # fmt: skip
    _cap(sitter, 1.015, hairline)


def _bowl_front(sitter: Sitter) -> None:
    w = sitter.person.width
    hairline = points(
        (1.1 * w, 0.12), (0.9 * w, 0.1), (0.84 * w, -0.3), (0, -0.36),
        (-0.84 * w, -0.3), (-0.9 * w, 0.1), (-1.1 * w, 0.12),
    )  # fmt: skip
    _cap(sitter, 1.15, hairline, reach=14)


def _long_back(sitter: Sitter) -> None:
    w = sitter.person.width
    _fall(sitter, points((0, -1.1), (1.1 * w, -0.7), (1.25 * w, 0.2), (1.25 * w, 1.7)))


def _fringe_front(sitter: Sitter) -> None:
    w = sitter.person.width
    hairline = points(
        (1.1 * w, 0.75), (0.88 * w, 0.6), (0.86 * w, -0.2), (0.8 * w, -0.3),
        (0, -0.34), (-0.8 * w, -0.3), (-0.86 * w, -0.2), (-0.88 * w, 0.6),
        (-1.1 * w, 0.75),
    )  # fmt: skip
    _cap(sitter, 1.1, hairline)
    color = shade(sitter.person.hair_color, 1.25)
    for x in (-0.4, -0.15, 0.12, 0.38):
        strand = points((0.7 * x, -0.8), (x, -0.4))
        sitter.canvas.line(
            sitter.on_face(strand), color, 0.025 * sitter.pose.scale, alpha=0.5
        )


def _curls_back(sitter: Sitter) -> None:
    _locks(sitter, crown(sitter, 1.1, 165, 375)[::2], 0.26, depth=-0.2)


def _curls_front(sitter: Sitter) -> None:
    _cap(sitter, 1.08, _high_hairline(sitter, -0.62))
    top = crown(sitter, 0.98, 196, 344)[::2]
    _locks(sitter, top, 0.2, depth=0.15)
    _locks(sitter, crown(sitter, 0.78, 215, 325)[::3], 0.17, depth=0.3)


def _bob_back(sitter: Sitter) -> None:
    w = sitter.person.width
    half = points((0, -1.08), (1.12 * w, -0.7), (1.34 * w, 0.2), (1.38 * w, 0.72))
    _fall(sitter, np.concatenate([half, points((0.9 * w, 0.84))]))


def _bob_front(sitter: Sitter) -> None:
    w = sitter.person.width
    hairline = points(
        (1.22 * w, 0.6), (0.92 * w, 0.5), (0.82 * w, -0.2), (0.4 * w, -0.56),
        (-0.35 * w, -0.84), (-0.7 * w, -0.5), (-0.88 * w, 0.0), (-0.94 * w, 0.5),
        (-1.22 * w, 0.6),
    )  # fmt: skip
    _cap(sitter, 1.13, hairline, reach=8)


def _waves_back(sitter: Sitter) -> None:
    w = sitter.person.width
    half = points((0, -1.14), (1.2 * w, -0.75), (1.5 * w, 0.2), (1.6 * w, 1.3))
    _fall(sitter, half, ripple=0.07)


def _waves_front(sitter: Sitter) -> None:
    _cap(sitter, 1.14, _parted_hairline(sitter, 0.35), reach=6)


def _spikes_front(sitter: Sitter) -> None:
    w, color = sitter.person.width, sitter.person.hair_color
    _cap(sitter, 1.03, _high_hairline(sitter, -0.64))
    # Two rows of tufts that lean to one side, the nearer one lighter.
    for row, depth, factor in ((1.42, 0.0, 0.86), (1.3, 0.25, 1.08)):
        for angle in range(198, 346, 18):
            root_left, root_right = crown(sitter, 0.92, angle - 13, angle + 13)[[0, -1]]
            tip = ellipse(
                (0.05, -0.14), w * row, 0.9 * row, start=angle + 7, end=angle + 8
            )
            tuft = np.stack([root_left, tip[0], root_right])
            outline = sitter.flat(tuft, depth)
            sitter.canvas.fill(outline, shade(color, factor), solid=True)
            color_line = shade(color, 0.66)
            middle = np.stack([(root_left + root_right) / 2, tip[0]])
            width = [0.02 * sitter.pose.scale, 0]
            sitter.canvas.line(sitter.flat(middle, depth), color_line, width, alpha=0.6)


HAIR: dict[str, tuple[Callable[[Sitter], None], Callable[[Sitter], None]]] = {
    "afro": (_afro_back, _afro_front),
    "bob": (_bob_back, _bob_front),
    "bowl": (_no_hair, _bowl_front),
    "braids": (_braids_back, _braids_front),
    "bun": (_bun_back, _bun_front),
    "buzz": (_no_hair, _buzz_front),
    "curls": (_curls_back, _curls_front),
    "long_fringe": (_long_back, _fringe_front),
    "side_part": (_no_hair, _side_part_front),
    "spikes": (_no_hair, _spikes_front),
    "tonsure": (_tonsure_back, _tonsure_front),
    "waves": (_waves_back, _waves_front),
}
"""Drawn behind the head, drawn over it."""
