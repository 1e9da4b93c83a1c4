"""What a page shows: a model with its tab, and how it reads pictures."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from unmask.formats.onnx_graphs import Graph
from unmask.page.samples import Reader

Tab = Literal["studio", "classes", "segmentation", "neighbours", "odd"]
"""The parts of a page."""


class Shown(NamedTuple):
    """A model on a page."""

    tab: Tab
    name: str
    """As the page shows it."""
    about: str
    """What it is, in words, without a path."""
    graph: Graph
    """What the browser computes."""
    reader: Reader
    facts: Mapping[str, Any] = {}
    """What else its tab must know, as JSON values."""
    files: Mapping[str, bytes] = {}
    """What else its tab needs, by the name under which it asks for it."""


def about_of(origin: str, graph: Graph, *more: str) -> str:
    """Origin, size and patches of a model in words."""
    size = graph.size
    pixels = f"{size.height} x {size.width} pixels, patches of {graph.patch_size}"
    return "; ".join((*more, origin, pixels))
