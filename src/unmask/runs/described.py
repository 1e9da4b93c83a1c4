"""What a loaded model says of itself, as text and as HTML."""

from html import escape

import torch

from unmask.errors import listed
from unmask.formats.model import ModelSpec
from unmask.runs.weights import shape_of


def facts_of(spec: ModelSpec, use: tuple[str, str], device: torch.device) -> dict[str, str]:
    """A line for each thing that one asks of a model first; `use` is what it has beside its encoder, and how to call it."""
    statistics = spec.statistics
    height, width = spec.image_size
    facts = {
        "encoder": shape_of(spec.encoder),
        "images": f"{height} x {width} pixels, {spec.channels} channels of {statistics.values}",
        "mean": _numbers(statistics.mean),
        "deviation": f"{_numbers(statistics.std)} ({statistics.source})",
    }
    return {**facts, use[0]: use[1], "device": str(device)}


def described(title: str, facts: dict[str, str]) -> str:
    """The facts as lines under a title."""
    width = max(map(len, facts)) + 2
    return "\n".join(
        [f"Model: {title}", *(f"  {name:{width}}{fact}" for name, fact in facts.items())]
    )


def described_in_html(title: str, facts: dict[str, str]) -> str:
    """The facts as a table, for notebooks."""
    rows = "".join(
        f"<tr><th>{escape(n)}</th><td>{escape(fact)}</td></tr>" for n, fact in facts.items()
    )
    return f"<table><caption>Model: {escape(title)}</caption>{rows}</table>"


def _numbers(values: tuple[float, ...]) -> str:
    return listed((f"{value:.3f}" for value in values), most=8)
