"""Devices, and what they can take."""

import pytest
import torch

from unmask.errors import ResourceError, SettingsError
from unmask.training.hardware import (
    Hardware,
    autocast,
    best_precision,
    best_workers,
    cores,
    find_device,
    memory_available,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["xpu", "nonsense", "meta:nonsense"])
def test_a_word_that_is_no_device_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=f"--device must be cpu, cuda .*got '{name}'"):
        find_device(name)


@pytest.mark.parametrize("name", ["cuda:99", "gpu:99"])
def test_a_device_that_is_not_here_lists_those_that_are(name: str) -> None:
    with pytest.raises(
        ResourceError, match=r"--device cuda:99 cannot be used here .*this machine has cpu"
    ):
        find_device(name)


def test_devices_that_are_here() -> None:
    assert find_device("cpu") == CPU
    assert find_device("auto").type in ("cpu", "cuda", "mps")


def test_choices_for_a_cpu() -> None:
    assert best_precision(CPU) == "float32"
    assert best_workers(CPU, in_memory=True) == 0
    assert best_workers(CPU, in_memory=False) == 1
    assert best_workers(torch.device("cuda"), in_memory=False) == min(16, cores())


def test_memory_is_some_and_not_all_there_is() -> None:
    assert 2**20 < memory_available(CPU) < 2**50


@pytest.mark.parametrize(
    ("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)]
)
def test_precision_is_that_of_matrix_products(precision: str, dtype: torch.dtype) -> None:
    matrix = torch.ones(2, 2)
    with autocast(CPU, precision):  # type: ignore[arg-type]
        assert (matrix @ matrix).dtype == dtype


@pytest.mark.parametrize(
    ("name", "value", "bounds"),
    [
        ("workers", -1, "not be negative"),
        ("threads", 0, "be at least 1"),
        ("micro_batch", 0, "be at least 1"),
    ],
)
def test_wrong_values_are_refused(name: str, value: int, bounds: str) -> None:
    fine = {"workers": 0, "threads": 1, "micro_batch": 1}
    with pytest.raises(SettingsError, match=f"{name} must {bounds}, got {value}"):
        Hardware(device="cpu", precision="float32", **(fine | {name: value}))


@pytest.mark.parametrize(("native", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_the_precision_is_bfloat16_where_the_gpu_has_it(
    monkeypatch: pytest.MonkeyPatch, native: bool, precision: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    assert best_precision(torch.device("cuda")) == precision
    assert best_precision(torch.device("cpu")) == "float32"
    assert best_precision(torch.device("mps")) == "float32"
