"""What a GPU is told, as far as a CPU can tell."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import problems
from torch.nn.attention import SDPBackend
from torch.utils._python_dispatch import TorchDispatchMode

from unmask.attention import PREFERRED, AttentionShape
from unmask.contracts import Batch, Size, StepReport
from unmask.encoders.vit import VisionTransformer
from unmask.objectives.mae import MaskedAutoencoder
from unmask.training.kernels import (
    attention_shapes,
    compile_parts,
    fastest_attention,
    preferred,
    preferring,
    prepared,
)

CPU = torch.device("cpu")


@pytest.mark.slow
def test_what_is_compiled_has_no_breaks_and_changes_nothing() -> None:
    script = Path(__file__).with_name("compiling.py")
    paths = [str(script.parents[1]), *sys.path]
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    assert done.stdout == "equal\n", done.stderr


def test_blocks_and_what_lies_between_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks, in encoder and decoder, by every method that runs one."""
    asked: list[str] = []

    def compile(function: object, **settings: object) -> object:
        asked.append(function.__name__)  # type: ignore[attr-defined]
        assert settings == {"fullgraph": True, "dynamic": False, "backend": "inductor"}
        return function

    monkeypatch.setattr(torch, "compile", compile)
    compile_parts(problems.build())
    methods = Counter(asked)
    assert [methods[name] for name in ("attend", "transform", "project", "finish")] == [4] * 4
    between = ("embed_visible", "open", "close", "score")
    assert [methods[name] for name in between] == [1] * 4


def test_shapes_of_attention() -> None:
    """Two encoder blocks see 4 of 16 patches and a class token; the decoder's last asks for 12."""
    model = problems.build()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = attention_shapes(model, problems.example(), CPU, "float32")
    assert found == {
        AttentionShape(3, 5, 5, 8): 2,
        AttentionShape(2, 17, 17, 8): 1,
        AttentionShape(2, 12, 17, 8): 1,
    }
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_fastest_kernel_comes_first_at_each_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that fails at a shape is out there alone."""
    small, large = AttentionShape(1, 5, 5, 8), AttentionShape(1, 50, 50, 8)
    cudnn, flash = SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION
    efficient = SDPBackend.EFFICIENT_ATTENTION
    seconds = {
        (flash, small): 1.0,
        (flash, large): 7.0,
        (cudnn, small): 3.0,
        (cudnn, large): 2.0,
        (efficient, small): 0.1,
    }

    def measured(kernel: SDPBackend, shape: AttentionShape, *rest: object) -> float:
        if (kernel, shape) not in seconds:
            raise RuntimeError("No available kernel.")
        return seconds[kernel, shape]

    monkeypatch.setattr("unmask.training.kernels.attention_seconds", measured)
    assert fastest_attention((small, large), 4, CPU, "float32") == {
        small: [efficient, flash, cudnn, SDPBackend.MATH],
        large: [cudnn, flash, SDPBackend.MATH],
    }


def test_kernels_that_do_not_exist_here_are_out() -> None:
    """A CPU has plain and flash attention; really run, once each."""
    shape = AttentionShape(2, 5, 5, 8)
    order = fastest_attention([shape], 2, CPU, "float32")
    assert order == {shape: [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]}


def test_each_shape_takes_its_kernel() -> None:
    """Those of the encoder plain attention, which makes the weights; the others torch's choice."""
    model = problems.build()
    batch = problems.batch_of(problems.pictures(problems.Problem(), 2))
    with preferred({AttentionShape(3, 5, 5, 8): [SDPBackend.MATH]}):
        assert kernels_of(model, batch) == ["plain"] * 2 + ["flash"] * 2
    assert kernels_of(model, batch) == ["flash"] * 4


def kernels_of(model: MaskedAutoencoder, batch: Batch) -> list[str]:
    """In the order of a forward pass."""
    with _Kernels() as noting:
        model(batch, problems.random(0))
    return noting.seen


class _Kernels(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "flash_attention" in str(func):
            self.seen.append("flash")
        elif "softmax" in str(func):
            self.seen.append("plain")
        return func(*args, **(kwargs or {}))


def test_a_preference_holds_within_steps_alone() -> None:
    """What happens between two steps is not ours to change."""
    wanted = {AttentionShape(2, 5, 5, 8): [SDPBackend.MATH]}
    inside: list[bool] = []

    def reports() -> Iterator[StepReport]:
        for step in range(2):
            inside.append(wanted == PREFERRED)
            yield StepReport(step, torch.zeros(()), {}, 0.1, 1, Size(8, 8), 0.0)

    outside = [wanted == PREFERRED for _ in preferring(wanted, reports())]
    assert inside == [True, True]
    assert outside == [False, False]
    assert not PREFERRED


def test_a_cpu_computes_what_is_written() -> None:
    model = problems.build()
    forward = model.encoder.blocks[0].forward
    around = prepared(model, [problems.example()], CPU, "float32", micro_batch=2, steps=10_000)
    same = iter(())
    assert around(same) is same
    assert isinstance(model.encoder, VisionTransformer)
    block = model.encoder.blocks[0]
    assert block.forward == forward
    assert block._compiled_call_impl is None
