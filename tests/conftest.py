"""What all tests share: one thread, so that sums are the same everywhere, and the published vectors."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, runtime_checkable

import pytest
import torch
from jaxtyping import install_import_hook
from safetensors import safe_open
from torch import Tensor

# As everywhere in Python's typing, a whole number may stand for a float.
install_import_hook(
    "unmask", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
)

VECTORS = Path(__file__).parent / "vectors"


def pytest_sessionstart() -> None:
    """Let the shape checks ask whether an object keeps a contract; a running program never asks."""
    from unmask import contracts

    for value in vars(contracts).values():
        if getattr(value, "_is_protocol", False) and value.__module__ == contracts.__name__:
            runtime_checkable(value)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def vectors() -> Callable[[str], tuple[dict[str, Tensor], dict[str, Any]]]:
    """The tensors of a file of published vectors, and its settings."""

    def read(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        with safe_open(VECTORS / f"{name}.safetensors", "pt") as file:
            settings = json.loads((file.metadata() or {}).get("config", "{}"))
            return {key: file.get_tensor(key) for key in file.keys()}, settings  # noqa: SIM118

    return read


@pytest.fixture(scope="session")
def published_schedules() -> dict[str, Any]:
    """Learning rates of the published code."""
    return json.loads((VECTORS / "schedules.json").read_text())
