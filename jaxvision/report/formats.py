"""How figures are written for people: one way everywhere."""

import math


def format_figure(value: float | None) -> str:
    """Three decimals below 10, fewer above, no zero before the point: `.912`, `1.250`,
    `41.32`, `1520`; `–` for None and for what is not finite."""
    if value is None or not math.isfinite(value):
        return "–"
    return _format(value, _decimals(value))


def format_mean_sd(mean: float | None, sd: float | None) -> str:
    """`.912 ± .008`, both with the decimals of the mean; no `±` without an sd."""
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


def _decimals(value: float) -> int:
    size = abs(value)
    return 3 if size < 10 else 2 if size < 100 else 1 if size < 1000 else 0


def _format(value: float, decimals: int) -> str:
    text = f"{value:.{decimals}f}"
    sign, digits = ("-", text[1:]) if text.startswith("-") else ("", text)
    return sign + (digits[1:] if digits.startswith("0.") else digits)
