"""Bars of text: the longest one is as wide as there is room for."""

from collections.abc import Sequence

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_STEPS = 8


def bars(values: Sequence[int], width: int) -> list[str]:
    """A bar for each value, in eighths of a character; what is more than nothing can be seen."""
    most = max(values, default=0)
    return [_bar(value, most, width) for value in values]


def _bar(value: int, most: int, width: int) -> str:
    if value <= 0:
        return ""
    # In whole numbers: micro-dollars may be more than a float can tell apart.
    eighths = max(1, value * width * _STEPS // most)
    whole, rest = divmod(eighths, _STEPS)
    return _EIGHTHS[-1] * whole + (_EIGHTHS[rest] if rest else "")
