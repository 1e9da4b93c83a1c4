"""What a GPU is told, as far as a CPU can tell."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from reference import problems
from torch.nn.attention import SDPBackend

from unmask.contracts import Size, StepReport
from unmask.encoders.vit import VisionTransformer
from unmask.training.kernels import (
    AttentionShape,
    attention_shapes,
    compile_blocks,
    fastest_attention,
    preferring,
    prepared,
)

CPU = torch.device("cpu")
SIZE = Size(16, 16)


def test_compiled_blocks_have_no_breaks_and_change_nothing() -> None:
    script = Path(__file__).with_name("compiling.py")
    paths = [str(script.parents[1]), *sys.path]
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    assert done.stdout == "equal\n", done.stderr


def test_blocks_are_what_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them, in encoder and decoder, by every method that runs one."""
    asked: list[str] = []

    def compile(function: object, **settings: object) -> object:
        asked.append(function.__name__)  # type: ignore[attr-defined]
        assert settings == {"fullgraph": True, "dynamic": False, "backend": "inductor"}
        return function

    monkeypatch.setattr(torch, "compile", compile)
    compile_blocks(problems.build())
    methods = Counter(asked)
    assert [methods[name] for name in ("attend", "transform", "project", "finish")] == [4] * 4


def test_shapes_of_attention() -> None:
    """Two encoder blocks see 4 of 16 patches and a class token; the decoder's last asks for 12."""
    model = problems.build()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = attention_shapes(model, SIZE, 3, CPU, "float32")
    assert found == {
        AttentionShape(3, 5, 5, 8): 2,
        AttentionShape(2, 17, 17, 8): 1,
        AttentionShape(2, 12, 17, 8): 1,
    }
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_fastest_kernel_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the sum over all shapes and how often they occur; one that fails at any shape is out."""
    small, large = AttentionShape(1, 5, 5, 8), AttentionShape(1, 50, 50, 8)
    seconds = {
        (SDPBackend.FLASH_ATTENTION, small): 1.0,
        (SDPBackend.FLASH_ATTENTION, large): 7.0,
        (SDPBackend.CUDNN_ATTENTION, small): 3.0,
        (SDPBackend.CUDNN_ATTENTION, large): 2.0,
        (SDPBackend.EFFICIENT_ATTENTION, small): 0.1,
    }

    def measured(kernel: SDPBackend, shape: AttentionShape, *rest: object) -> float:
        if (kernel, shape) not in seconds:
            raise RuntimeError("No available kernel.")
        return seconds[kernel, shape]

    monkeypatch.setattr("unmask.training.kernels.attention_seconds", measured)
    order = fastest_attention(Counter({small: 2, large: 1}), 4, CPU, "float32")
    cudnn, flash = SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION
    assert order == [cudnn, flash, SDPBackend.MATH]
    assert fastest_attention(Counter({small: 9, large: 1}), 4, CPU, "float32")[0] is flash


def test_kernels_that_do_not_exist_here_are_out() -> None:
    """A CPU has plain and flash attention; really run, once each."""
    shapes = Counter({AttentionShape(2, 5, 5, 8): 1})
    order = fastest_attention(shapes, 2, CPU, "float32")
    assert order == [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]


def test_a_preference_holds_within_steps_alone() -> None:
    """What happens between two steps is not ours to change."""
    enabled = torch.backends.cuda.flash_sdp_enabled
    assert enabled()
    inside: list[bool] = []

    def reports() -> Iterator[StepReport]:
        for step in range(2):
            inside.append(enabled())
            yield StepReport(step, torch.zeros(()), {}, 0.1, 1, Size(8, 8), 0.0)

    outside = [enabled() for _ in preferring([SDPBackend.MATH], reports())]
    assert inside == [False, False]
    assert outside == [True, True]


def test_a_cpu_computes_what_is_written() -> None:
    model = problems.build()
    forward = model.encoder.blocks[0].forward
    around = prepared(model, SIZE, 3, CPU, "float32", micro_batch=2, steps=10_000)
    same = iter(())
    assert around(same) is same
    assert isinstance(model.encoder, VisionTransformer)
    block = model.encoder.blocks[0]
    assert block.forward == forward
    assert block._compiled_call_impl is None
