"""unmask: masked image pretraining on your own images."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from unmask.runs.model import Model, load

_HOMES = {"Model": "unmask.runs.model", "load": "unmask.runs.model"}

__all__ = ["Model", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that `unmask --help` stays quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'unmask' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
