"""Intervals of numbers, and what is said of a number outside; without any import that takes time."""

import math


def outside(name: str, value: float, interval: str, usual: str = "") -> str:
    """What is wrong with a number that lies outside an interval; empty if it lies inside.

    Args:
        name: what has the value.
        value: the number.
        interval: as in mathematics: "[0, 1)" includes 0 and excludes 1; "(0, inf)" is everything above 0. Infinity and NaN
            are outside every interval.
        usual: ends the message, such as the usual value.
    """
    low, high = (float(end) for end in interval[1:-1].split(","))
    low_enough = value <= high if interval[-1] == "]" else value < high
    high_enough = value >= low if interval[0] == "[" else value > low
    if low >= 0 and high == 1 and 2 <= value <= 100:  # a percentage
        usual = f"{brief(value)} % is {value / 100:g}"
    hint = f"; {usual}" if usual else ""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{name} must be a finite number, got {value}{hint}"
    if low_enough and high_enough:
        return ""
    return f"{name} must {_bounds(interval, low, high)}, got {brief(value)}{hint}"


def brief(value: float) -> str:
    """A number for a message: not the digits of an absurd one, and a whole one without a point."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a number of about {int(value.bit_length() * math.log10(2)) + 1:,} digits"
    return str(value).removesuffix(".0")


def _bounds(interval: str, low: float, high: float) -> str:
    """An interval in words, to follow "must"."""
    least = f"at least {low:g}" if interval[0] == "[" else f"above {low:g}"
    if math.isinf(low):
        return f"be at most {high:,.0f}"
    if math.isinf(high):
        return "not be negative" if interval.startswith("[0,") else f"be {least}"
    if interval[0] + interval[-1] in ("()", "[]"):
        return f"lie between {low:g} and {high:g}"
    most = f"at most {high:g}" if interval[-1] == "]" else f"below {high:g}"
    return f"be {least} and {most}"
