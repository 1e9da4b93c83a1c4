"""What all tests share: one thread and one seed, so that numbers are the same everywhere, and the published vectors."""

import importlib.util
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the commands do, before torch is loaded

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

VECTORS = Path(__file__).parent / "vectors"
SHARED = Path(__file__).parents[2] / "shared" / "data"
"""Real data sets beside the repository, with a script that unpacks them; tests that need them are skipped elsewhere."""


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_chance() -> None:
    """What a test draws does not depend on the tests before it in its process."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Indexes go to a folder of the tests, also those of commands in processes of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


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


@pytest.fixture(scope="session")
def real_set(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`real_set("bccd", limit=6)`: the folder of a real data set, with the first files of each of its folders."""
    script = SHARED / "unpack.py"

    def unpacked(name: str, limit: int | None = None) -> Path:
        if not script.exists():
            pytest.skip("the real data sets are not there")
        spec = importlib.util.spec_from_file_location("unpack", script)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        root = tmp_path_factory.getbasetemp() / f"{name}-{limit}"
        if not root.exists():
            module.unpack(name, root, limit=limit)
        return root

    return unpacked
