"""Eyes, brows, nose, mouth, ears, beards, glasses, marks of the skin; the body."""

import dataclasses
from collections.abc import Callable

import numpy as np

from jaxvision.data.demo.canvas import (
    Points,
    curve,
    ellipse,
    mix,
    moved,
    points,
    random_color,
    rotation,
    rounded_box,
    shade,
)
from jaxvision.data.demo.sitter import INK, Sitter


def eyes(sitter: Sitter) -> None:
    person, mood, scale = sitter.person, sitter.mood, sitter.pose.scale
    height = person.eye * person.eye_open * mood.lids
    for side in (-1, 1):
        center = np.array([side * person.eye_gap, 0.0])
        turn = rotation(-side * person.eye_slant)
        upper = ellipse((0, 0), person.eye, height, start=180, end=360, corners=12)
        lower = ellipse((0, 0), person.eye, 0.75 * height, start=0, end=180, corners=12)
        almond = np.concatenate([upper, lower]) @ turn + center
        socket = ellipse(center, 1.5 * person.eye, 1.5 * person.eye * 0.75)
        sitter.skin(sitter.on_face(socket), 0.8, alpha=0.3)
        sitter.canvas.fill(sitter.on_face(almond), (246, 243, 238))
        if mood.lids > 0.3:
            _iris(sitter, center, almond)
        crease = upper @ turn + center
        lid_width = [0.2, 1.0, 1.2] if side > 0 else [1.2, 1.0, 0.2]
        weight = (0.055 if person.lashes else 0.035) * scale
        sitter.canvas.line(sitter.on_face(crease), INK, np.array(lid_width) * weight)
        if person.lashes:
            for x in (0.7, 0.95, 1.1):
                root = np.array([side * x * person.eye * 0.9, -0.5 * height])
                tip = np.add(root, (side * 0.06, -0.07))
                lash = np.stack([root, tip]) @ turn + center
                sitter.canvas.line(sitter.on_face(lash), INK, [0.03 * scale, 0])
        if person.wrinkles:
            for angle in (-25, 5):
                fold = points((1.25 * person.eye, 0), (1.7 * person.eye, 0))
                fold = fold @ rotation(angle) * [side, 1] + center
                sitter.canvas.line(
                    sitter.on_face(fold), shade(person.skin, 0.6), 0.018 * scale
                )


def _iris(sitter: Sitter, center: np.ndarray, almond: Points) -> None:
    """Iris, pupil and highlight, cut off by the lids."""
    person = sitter.person
    middle = np.add(center, (0.35 * sitter.mood.gaze * person.eye, 0.0))
    low, high = almond[:, 1].min(), almond[:, 1].max()
    for share, color in (
        (0.62, shade(person.iris, 0.7)),
        (0.52, person.iris),
        (0.28, (20, 16, 18)),
    ):
        disc = ellipse(middle, share * person.eye, corners=18)
        disc[:, 1] = disc[:, 1].clip(low, high)
        sitter.canvas.fill(sitter.on_face(disc), color)
    shine = sitter.on_face(np.add(middle, (-0.04, -0.035))[None])[0]
    sitter.canvas.dot(shine, 0.17 * person.eye * sitter.pose.scale, (255, 255, 255))


def brows(sitter: Sitter) -> None:
    person, mood = sitter.person, sitter.mood
    color = shade(person.hair_color, 0.8)
    base = -person.brow_height - 0.06 * mood.brow_raise
    for side in (-1, 1):
        inner, outer = person.eye_gap - 0.16, person.eye_gap + 0.2
        bow = curve(
            points(
                (side * inner, base - 0.05 * mood.brow_raise + 0.02),
                (side * (inner + outer) / 2, base - 0.05 - 0.5 * person.brow_slant),
                (side * outer, base + 0.03 - person.brow_slant),
            )
        )
        widths = np.array([0.8, 1.0, 0.25]) * person.brow * sitter.pose.scale
        sitter.canvas.line(sitter.on_face(bow), color, widths, alpha=0.92)


def nose(sitter: Sitter) -> None:
    person, scale = sitter.person, sitter.pose.scale
    tip, half = person.nose, person.nose_width
    dark = shade(person.skin, 0.68)
    side = -1.0 if sitter.pose.yaw > 0 else 1.0
    flank = curve(
        points(
            (side * 0.06, -0.02), (side * 0.07, 0.5 * tip),
            (side * half, tip - 0.05), (side * 0.4 * half, tip + 0.05), (0, tip + 0.03),
        )
    )  # fmt: skip
    bridge = np.concatenate([flank, points((0, -0.02))])
    lifted = sitter.on_face(bridge, lift=0.1)
    sitter.skin(lifted, 0.82, alpha=0.6)
    ball = ellipse((0, tip - 0.04), 0.75 * half, 0.6 * half)
    sitter.skin(sitter.on_face(ball, lift=0.16), 1.1, alpha=0.8)
    for x in (-1, 1):
        wing = ellipse(
            (x * 0.72 * half, tip - 0.01), 0.36 * half, 0.4 * half, corners=14
        )
        sitter.skin(sitter.on_face(wing, lift=0.08), 0.9, alpha=0.9)
        hole = ellipse((x * 0.4 * half, tip + 0.04), 0.2 * half, 0.02 + 0.06 * half)
        sitter.canvas.fill(sitter.on_face(hole, lift=0.1), shade(person.skin, 0.42))
    under = curve(
        points(
            (-half, tip - 0.03), (-0.75 * half, tip + 0.05), (0, tip + 0.07),
            (0.75 * half, tip + 0.05), (half, tip - 0.03),
        )
    )  # fmt: skip
    widths = np.array([0.2, 1.0, 0.7, 1.0, 0.2]) * 0.035 * scale
    sitter.canvas.line(sitter.on_face(under, lift=0.08), dark, widths)


def mouth(sitter: Sitter) -> None:
    person, mood, scale = sitter.person, sitter.mood, sitter.pose.scale
    y = 0.3 + 0.5 * person.nose + 0.18 * person.length
    half = person.mouth * (1 + 0.15 * mood.smile)
    bend = 0.09 * mood.smile
    gap = 0.16 * mood.jaw_drop
    left, right = (-half, y - bend), (half, y - bend)
    middle = y + 0.6 * bend
    top = curve(points(left, (0, middle), right))
    low = curve(points(right, (0.5 * half, middle + gap), (0, middle + 1.3 * gap),
                       (-0.5 * half, middle + gap), left))  # fmt: skip
    lip = person.lips
    upper_lip = curve(
        points(
            left, (-0.5 * half, middle - 0.7 * lip - 0.3 * bend),
            (-0.16 * half, middle - lip), (0, middle - 0.75 * lip),
            (0.16 * half, middle - lip), (0.5 * half, middle - 0.7 * lip - 0.3 * bend),
            right,
        )
    )  # fmt: skip
    lower_lip = curve(
        points(
            left, (-0.5 * half, middle + gap + 0.9 * lip),
            (0, middle + 1.3 * gap + 1.35 * lip),
            (0.5 * half, middle + gap + 0.9 * lip), right,
        )
    )  # fmt: skip
    color = mix(person.lip_color, person.skin, 0.25)
    below = np.concatenate([top, lower_lip[::-1]])
    sitter.canvas.fill(sitter.on_face(below), shade(color, 1.08))
    above = np.concatenate([top, upper_lip[::-1]])
    sitter.canvas.fill(sitter.on_face(above), shade(color, 0.86))
    if gap:
        sitter.canvas.fill(sitter.on_face(np.concatenate([top, low])), (70, 26, 32))
        teeth = np.concatenate([top, moved(top, 0, 0.4 * gap)[::-1]])
        sitter.canvas.fill(sitter.on_face(teeth * [0.82, 1]), (244, 240, 230))
    else:
        widths = np.array([0.3, 1.0, 0.3]) * 0.04 * scale
        sitter.canvas.line(sitter.on_face(top), shade(color, 0.45), widths)
    if person.wrinkles or mood.smile > 0.6:
        for side in (-1, 1):
            x = side * (half + 0.08)
            fold = curve(points((0.72 * x, person.nose), (x, y - 0.12), (x, y + 0.04)))
            width = [0, 0.03 * scale, 0]
            alpha = 0.8 if person.wrinkles else 0.4
            sitter.canvas.line(
                sitter.on_face(fold), shade(person.skin, 0.66), width, alpha=alpha
            )


def ears(sitter: Sitter) -> None:
    person = sitter.person
    for side in (-1, 1):
        x = side * (person.width + 0.25 * person.ear)
        lobe = sitter.flat(ellipse((x, 0.08), 0.62 * person.ear, person.ear), -0.1)
        sitter.canvas.fill(lobe, shade(person.skin, 0.93), solid=True)
        inner = ellipse((x, 0.08), 0.34 * person.ear, 0.62 * person.ear)
        sitter.skin(sitter.flat(inner, -0.1), 0.72, alpha=0.7)


def earrings(sitter: Sitter) -> None:
    person, scale = sitter.person, sitter.pose.scale
    for side in (-1, 1):
        center = (side * (person.width + 0.06), 0.42)
        ring = ellipse(center, 0.13, start=-80, end=260, corners=20)
        width = 0.045 * scale
        sitter.canvas.line(sitter.flat(ring, -0.1), (226, 190, 92), width, solid=True)


def skin_marks(sitter: Sitter) -> None:
    person, scale = sitter.person, sitter.pose.scale
    if person.blush:
        for side in (-1, 1):
            cheek = ellipse((side * 0.48 * person.width / 0.78, 0.3), 0.17, 0.13)
            sitter.canvas.fill(
                sitter.on_face(cheek), (226, 110, 104), alpha=0.4 * person.blush
            )
    if person.freckles:
        # The same freckles in every image: they are the person's.
        spots = np.random.default_rng(7).uniform((-0.5, 0.06), (0.5, 0.36), (34, 2))
        for spot in sitter.on_face(spots * [person.width / 0.72, 1]):
            sitter.canvas.dot(spot, 0.017 * scale, (166, 96, 62), alpha=0.75)
    if person.mole:
        mole = sitter.on_face(points((0.3, 0.46)))[0]
        sitter.canvas.dot(mole, 0.034 * scale, (62, 38, 34))
    if person.wrinkles:
        for y in (-0.5, -0.6):
            fold = curve(points((-0.3, y + 0.03), (0, y), (0.3, y + 0.03)))
            sitter.canvas.line(
                sitter.on_face(fold), shade(person.skin, 0.72), [0, 0.025 * scale, 0]
            )


def _beard_mask(sitter: Sitter, high: float, alpha: float) -> None:
    """Hair on the jaw from the ears (y = `high`) down, around the mouth."""
    person = sitter.person
    head = sitter.head()
    jaw = head[head[:, 1] > high]
    # The head's outline runs clockwise: right side down, chin, left side up.
    jaw = jaw * [1.02, 1.03]
    y = person.nose + 0.13
    inner = curve(
        points(
            (-0.8 * person.width, high), (-0.62 * person.width, y + 0.1),
            (-0.3, y + 0.01), (0, y + 0.03), (0.3, y + 0.01),
            (0.62 * person.width, y + 0.1), (0.8 * person.width, high),
        )
    )  # fmt: skip
    outline = np.concatenate([sitter.flat(jaw), sitter.on_face(inner)])
    color = shade(person.hair_color, 0.92)
    sitter.canvas.fill(outline, color, alpha=alpha)


def _full_beard(sitter: Sitter) -> None:
    person = sitter.person
    below = points(
        (0.8 * person.width, 0.5), (0.66 * person.width, 1.0),
        (0, 1.24 * person.length), (-0.66 * person.width, 1.0),
        (-0.8 * person.width, 0.5),
    )  # fmt: skip
    color = shade(person.hair_color, 0.85)
    sitter.canvas.fill(sitter.flat(curve(below), 0.2), color, solid=True)
    _beard_mask(sitter, 0.15, 1.0)
    for x in np.linspace(-0.5, 0.5, 9):
        strand = points((0.7 * x, 0.86), (x, 1.12 - 0.3 * abs(x)))
        sitter.canvas.line(
            sitter.flat(strand, 0.3),
            shade(person.hair_color, 1.2),
            0.025 * sitter.pose.scale,
            alpha=0.5,
        )


def _goatee(sitter: Sitter) -> None:
    y, low = sitter.person.nose + 0.12, sitter.person.length
    ring = points(
        (-0.3, y + 0.1), (-0.2, y), (0, y + 0.02), (0.2, y), (0.3, y + 0.1),
        (0.3, 0.8 * low), (0.16, 1.03 * low), (-0.16, 1.03 * low), (-0.3, 0.8 * low),
    )  # fmt: skip
    color = sitter.person.hair_color
    outline = sitter.on_face(curve(ring, closed=True))
    sitter.canvas.fill(outline, color, alpha=0.9, solid=True)
    inside = ellipse((0, y + 0.19), 0.22, 0.13)
    sitter.skin(sitter.on_face(inside), 0.98)


def _mustache(sitter: Sitter) -> None:
    y = sitter.person.nose + 0.12
    bar = curve(
        points((-0.44, y + 0.04), (-0.24, y + 0.08), (0, y), (0.24, y + 0.08),
               (0.44, y + 0.04))
    )  # fmt: skip
    widths = np.array([0.0, 0.17, 0.13, 0.17, 0.0]) * sitter.pose.scale
    placed = sitter.on_face(bar, lift=0.05)
    sitter.canvas.line(placed, sitter.person.hair_color, widths)
    fine = np.array([0.0, 0.04, 0.02, 0.04, 0.0]) * sitter.pose.scale
    sitter.canvas.line(placed, shade(sitter.person.hair_color, 0.7), fine, alpha=0.6)


def _stubble(sitter: Sitter) -> None:
    _beard_mask(sitter, 0.3, 0.38)


BEARDS: dict[str, Callable[[Sitter], None]] = {
    "full": _full_beard,
    "goatee": _goatee,
    "mustache": _mustache,
    "stubble": _stubble,
}


def glasses(sitter: Sitter, *, dark: bool = False) -> None:
    person, scale = sitter.person, sitter.pose.scale
    round_ones = person.glasses == "round"
    weight = (0.035 if round_ones else 0.06) * scale
    for side in (-1, 1):
        x = side * person.eye_gap
        if round_ones and not dark:
            rim = ellipse((x, 0.02), 0.25, 0.25)
        else:
            rim = moved(rounded_box(0.27, 0.17), x, 0.02)
        placed = sitter.on_face(rim, lift=0.12)
        if dark:
            sitter.canvas.fill(placed, (24, 24, 30), alpha=0.93)
        else:
            sitter.canvas.fill(placed, (220, 236, 244), alpha=0.14)
        loop = np.concatenate([placed, placed[:2]])
        sitter.canvas.line(loop, person.glasses_color, weight)
        arm = points((x + side * 0.26, -0.02), (side * person.width, -0.06))
        sitter.canvas.line(
            sitter.on_face(arm, lift=0.06), person.glasses_color, 0.8 * weight
        )
    gap = person.eye_gap - 0.25
    bridge = curve(points((-gap, 0.0), (0, -0.05), (gap, 0.0)))
    sitter.canvas.line(sitter.on_face(bridge, lift=0.14), person.glasses_color, weight)


def body(sitter: Sitter, rng: np.random.Generator) -> None:
    """Neck, shoulders and this image's clothes; they turn less than the head."""
    person, scale = sitter.person, sitter.pose.scale
    width = person.width
    neck = points(
        (-0.55 * width, 0.4), (0.55 * width, 0.4), (0.6 * width, 1.5),
        (-0.6 * width, 1.5),
    )  # fmt: skip
    neck = sitter.flat(neck, -0.2)
    sitter.canvas.fill(neck, shade(person.skin, 0.84), solid=True)
    shadow = sitter.flat(ellipse((0, 0.95 * person.length), 0.58 * width, 0.3), -0.1)
    sitter.skin(shadow, 0.62, alpha=0.6)
    color = random_color(rng)
    slope = rng.uniform(1.3, 1.5)
    shoulders = curve(
        points(
            (-0.5 * width, slope - 0.18), (-1.1, slope + 0.1), (-1.75, slope + 0.6),
            (-1.9, 3.2), (1.9, 3.2), (1.75, slope + 0.6), (1.1, slope + 0.1),
            (0.5 * width, slope - 0.18), (0, slope + rng.uniform(-0.1, 0.3)),
        ),
        closed=True,
    )  # fmt: skip
    upright = dataclasses.replace(sitter.pose, roll=0.4 * sitter.pose.roll)
    sitter.canvas.fill(upright.place(shoulders), color, solid=True)
    other = random_color(rng)
    pattern = rng.choice(["plain", "stripes", "collar", "dots"])
    if pattern == "stripes":
        for y in np.arange(slope + 0.3, 3.0, 0.3):
            reach = min(1.6, 1.0 + (y - slope))
            bar = upright.place(points((-reach, y), (reach, y)))
            sitter.canvas.line(bar, other, 0.12 * scale)
    elif pattern == "collar":
        for side in (-1, 1):
            flap = points(
                (side * 0.62 * width, slope - 0.24), (0, slope + 0.16),
                (side * 0.62, slope + 0.42),
            )  # fmt: skip
            sitter.canvas.fill(upright.place(flap), other, solid=True)
    elif pattern == "dots":
        for x in np.arange(-1.2, 1.3, 0.4):
            spot = upright.place(points((x, slope + 0.55)))[0]
            sitter.canvas.dot(spot, 0.08 * scale, other)
