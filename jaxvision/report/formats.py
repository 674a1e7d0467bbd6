"""How figures are written for people: one way everywhere."""

import math
import re
from collections.abc import Sequence

TINY = 1e-3
"""Below it a figure has nothing left of three decimals."""


def format_figure(value: float | None) -> str:
    """Three decimals below 10, fewer above, no zero before the point: `.912`, `1.250`,
    `41.32`, `1520`; `–` for None and for what is not finite."""
    if value is None or not math.isfinite(value):
        return "–"
    return _format(value, _decimals(value))


def format_mean_sd(mean: float | None, sd: float | None) -> str:
    """`.912 ± .008`, both with the decimals of the mean; no `±` without an sd. What
    three decimals leave nothing of, such as a learning rate, has two digits."""
    if mean and abs(mean) < TINY and (sd is None or sd < TINY):
        return f"{mean:.2g}" if sd is None else f"{mean:.2g} ± {sd:.1g}"
    if mean is None or not math.isfinite(mean) or sd is None or not math.isfinite(sd):
        return format_figure(mean)
    decimals = _decimals(mean)
    return f"{_format(mean, decimals)} ± {_format(sd, decimals)}"


def format_duration(seconds: float) -> str:
    """`8.4 s` below a minute, `2:05` below an hour, else `1:02:05`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def format_value(value: float | Sequence[float]) -> str:
    """A published figure, or the range of several: `.950`, `.940 to .950`, `0.0001`."""
    values = value if isinstance(value, Sequence) else [value]
    return " to ".join(map(_short, values))


def format_count(number: int, noun: str) -> str:
    """`1 epoch`, `2 epochs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def format_words(name: str) -> str:
    """`best_val_accuracy` in words."""
    words = name.replace("_", " ").replace(" f1", " F1")
    return re.sub(r"\bval\b", "validation", words).replace("train ", "training ")


def _short(value: float) -> str:
    if value >= 1:
        return f"{value:g}"
    return format_mean_sd(float(value), None)


def _decimals(value: float) -> int:
    size = abs(value)
    return 3 if size < 10 else 2 if size < 100 else 1 if size < 1000 else 0


def _format(value: float, decimals: int) -> str:
    text = f"{value:.{decimals}f}"
    sign, digits = ("-", text[1:]) if text.startswith("-") else ("", text)
    return sign + (digits[1:] if digits.startswith("0.") else digits)


MOST_NAMES = 12
LONGEST_NAME = 60


def format_names(names: Sequence[str]) -> str:
    """All of up to 12 names; of more the first ones, the last, and how many there are;
    on one line. Long names are shortened."""
    short = [format_name(name) for name in names]
    if len(names) > MOST_NAMES:
        first = ", ".join(short[: MOST_NAMES - 2])
        return f"{first}, …, {short[-1]} ({len(names)} in all)"
    return ", ".join(short)


def format_name(name: str) -> str:
    """A name as it is, or shortened to 60 characters; on one line."""
    name = format_line(name)
    return shorten(name, LONGEST_NAME) if len(name) > LONGEST_NAME else name


def format_line(text: str) -> str:
    """A text for a terminal: control characters, which names of files may hold, are
    written as `\\x1b`."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shorten(text: str, limit: int) -> str:
    """`text` on one line of at most `limit` characters, `…` in place of its middle:
    the ends of names (surnames, numbers) tell them apart as often as the beginnings."""
    text = printable(" ".join(text.split()))
    if len(text) <= limit:
        return text
    tail = (limit - 1) // 3
    return f"{text[: limit - 1 - tail].rstrip()}…{text[len(text) - tail :].lstrip()}"


def printable(line: str) -> str:
    """Spaces for what has no glyph: tabs, or bytes of a file name that are no text."""
    return "".join(c if c.isprintable() else " " for c in line)
