"""What the functions of the commands take as images, beside a path."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from unmask.console.typed import as_typed
from unmask.data import AnySource, Held
from unmask.data.objects import ByNumber
from unmask.errors import RunError, SettingsError

HeldOrNamed = (
    str | Path | AnySource | NDArray[Any] | Tensor | Sequence[Any] | Dataset[Any] | ByNumber
)
"""Images by their place, or as a Python program holds them; see `data.objects`."""


def refuse_loader(data: Any, function: str) -> None:
    """Refuse a DataLoader for training.

    Raises:
        SettingsError: with what to give instead.
    """
    if isinstance(data, DataLoader):
        raise SettingsError(
            f"{function} takes a map-style Dataset, not a DataLoader, whose order cannot be resumed exactly; give "
            "loader.dataset, without random transforms"
        )


def refuse_settings(**settings: Any) -> None:
    """Refuse what cannot change when a run is resumed.

    Raises:
        SettingsError: with the name of an argument that was given.
    """
    for name, value in settings.items():
        if value is not None:
            raise SettingsError(
                f"resume continues a run exactly, so {name} cannot be given too; start another run without resume"
            )


def refuse_others(root: str | Path, of_run: AnySource, data: AnySource) -> None:
    """Refuse other images of a program than those of the run; paths are compared later, by their content.

    Raises:
        RunError: with both.
    """
    if Held in (type(data), type(of_run)) and data != of_run:
        raise RunError(
            f"{root} learns from {_in_words(of_run)}, not from {_in_words(data)}, so it cannot be resumed exactly; give "
            "the images that it began with, in the same order"
        )


def _in_words(data: AnySource) -> str:
    if isinstance(data, Held):
        return f"{data.what} of {data.images:,} images ({data.fingerprint})"
    return as_typed(data)
