"""Checkpoints: what goes in comes out to the bit, and no accident costs an earlier one."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import problems
from reference.problems import Problem
from torch import Tensor

from unmask.errors import ResourceError, RunError
from unmask.objectives.mae import MaskedAutoencoder
from unmask.training import checkpoint
from unmask.training.checkpoint import Saving, newest, optimizer_tensors, restore_optimizer
from unmask.training.optimizers import AdamW


def some_tensors(seed: int = 0) -> dict[str, dict[str, Tensor]]:
    noise = torch.randn(3, 4, generator=problems.random(seed))
    return {
        "model": {
            "a": noise,
            "turned": noise.T,
            "half": noise.bfloat16(),
            "odd": torch.tensor([torch.nan, torch.inf, -0.0, 1e-45]),
            "bytes": torch.arange(5, dtype=torch.uint8),
        },
        "training/optimizer": {"a:step": torch.tensor(3.0)},
    }


def save(root: Path, step: int, seed: int = 0) -> Path:
    return Saving(
        root,
        some_tensors(seed),
        step=step,
        images_seen=step * 8,
        spec_hash="0123456789abcdef",
        metadata={"format": "pt"},
    ).finish()


def same_bits(left: Tensor, right: Tensor) -> bool:
    """Equal to the bit: NaN equals NaN, and -0 is not 0."""
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    first, second = (x.contiguous().flatten().view(torch.uint8) for x in (left, right))
    return first.equal(second)


def folders(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_round_trip(tmp_path: Path) -> None:
    folder = save(tmp_path, 7)
    assert folder == tmp_path / "step-0000007"
    found, damaged = newest(tmp_path)
    assert damaged == []
    assert found is not None
    assert (found.folder, found.info.step, found.info.images_seen) == (folder, 7, 56)
    assert found.info.torch_version == torch.__version__
    assert found.info.spec_hash == "0123456789abcdef"
    for name, tensors in some_tensors().items():
        back = found.read(name)
        assert back.keys() == tensors.keys()
        for key, tensor in tensors.items():
            assert same_bits(back[key], tensor), key


def test_only_the_last_two_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 10, 100):
        save(tmp_path, step)
    assert folders(tmp_path) == ["step-0000010", "step-0000100"]


def test_more_than_seven_digits_stay_in_order(tmp_path: Path) -> None:
    save(tmp_path, 9_999_999)
    save(tmp_path, 10_000_000)
    found, _ = newest(tmp_path)
    assert found is not None
    assert found.info.step == 10_000_000


def test_no_checkpoint(tmp_path: Path) -> None:
    assert newest(tmp_path) == (None, [])
    assert newest(tmp_path / "nowhere") == (None, [])


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))


DAMAGE = {
    "a flipped bit": (
        lambda folder: flip_a_byte(folder / "model.safetensors"),
        "model.*checksum differs",
    ),
    "a cut file": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"short"),
        "model.*checksum differs",
    ),
    "a missing file": (
        lambda folder: (folder / "training" / "optimizer.safetensors").unlink(),
        "cannot be read.*optimizer",
    ),
    "no info": (lambda folder: (folder / "info.json").unlink(), "cannot be read.*info.json"),
    "cut info": (lambda folder: (folder / "info.json").write_text('{"form'), "cannot be read"),
    "empty info": (lambda folder: (folder / "info.json").write_text(""), "cannot be read"),
    "odd info": (
        lambda folder: (folder / "info.json").write_text('{"format": 1}'),
        "cannot be read",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_newest_gives_the_one_before(tmp_path: Path, damage: str) -> None:
    spoil, message = DAMAGE[damage]
    save(tmp_path, 1, seed=1)
    spoil(save(tmp_path, 2, seed=2))
    found, damaged = newest(tmp_path)
    assert found is not None
    assert found.info.step == 1
    assert same_bits(found.read("model")["a"], some_tensors(1)["model"]["a"])
    (problem,) = damaged
    assert problem.startswith(str(tmp_path / "step-0000002"))
    assert re.search(message, problem), problem


@pytest.mark.parametrize("text", ["7", "null", '{"format": "1"}', '{"format": null}'])
def test_info_of_another_shape_gives_the_one_before(tmp_path: Path, text: str) -> None:
    save(tmp_path, 1)
    (save(tmp_path, 2) / "info.json").write_text(text)
    found, damaged = newest(tmp_path)
    assert found is not None
    assert found.info.step == 1
    assert "cannot be read" in damaged[0]


def test_all_damaged_is_none_with_both_named(tmp_path: Path) -> None:
    for step in (1, 2):
        flip_a_byte(save(tmp_path, step) / "model.safetensors")
    found, damaged = newest(tmp_path)
    assert found is None
    assert [Path(problem.partition(":")[0]).name for problem in damaged] == [
        "step-0000002",
        "step-0000001",
    ]


def test_a_damaged_one_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    flip_a_byte(save(tmp_path, 3) / "model.safetensors")
    save(tmp_path, 3, seed=5)
    found, damaged = newest(tmp_path)
    assert found is not None
    assert damaged == []
    assert same_bits(found.read("model")["a"], some_tensors(5)["model"]["a"])


def test_half_written_ones_are_never_read_and_are_cleared(tmp_path: Path) -> None:
    save(tmp_path, 1)
    left = tmp_path / ".writing-step-0000002"
    (left / "training").mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    found, damaged = newest(tmp_path)
    assert found is not None
    assert found.info.step == 1
    assert damaged == []
    save(tmp_path, 2)
    assert folders(tmp_path) == ["step-0000001", "step-0000002"]


def test_newer_formats_are_refused(tmp_path: Path) -> None:
    folder = save(tmp_path, 1)
    info = json.loads((folder / "info.json").read_text())
    (folder / "info.json").write_text(
        json.dumps(info | {"format": checkpoint.FORMAT + 1, "new": 1})
    )
    with pytest.raises(
        RunError, match="checkpoint format 2, and this unmask reads up to 1; install a newer"
    ):
        newest(tmp_path)


@pytest.mark.parametrize("failing_file", [1, 2])
def test_full_disk_keeps_the_earlier_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing_file: int
) -> None:
    save(tmp_path, 1, seed=1)
    save(tmp_path, 2, seed=2)
    real, calls = checkpoint.save_tensors, []

    def fill(tensors: dict[str, Tensor], path: Path, metadata: Any) -> None:
        calls.append(path)
        if len(calls) == failing_file:
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        real(tensors, path, metadata)

    monkeypatch.setattr(checkpoint, "save_tensors", fill)
    with pytest.raises(
        ResourceError,
        match=r"step 3 could not be written.*No space left on device.*"
        r"earlier checkpoints are intact. Make room.*--resume",
    ):
        save(tmp_path, 3)
    assert folders(tmp_path) == ["step-0000001", "step-0000002"]
    found, damaged = newest(tmp_path)
    assert found is not None
    assert damaged == []
    assert same_bits(found.read("model")["a"], some_tensors(2)["model"]["a"])


def test_full_disk_at_the_last_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1)

    def fill(path: Path, write: Callable[[Path], object]) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_whole", fill)
    with pytest.raises(ResourceError, match="No space left"):
        save(tmp_path, 2)
    assert folders(tmp_path) == ["step-0000001"]


def trained(model: MaskedAutoencoder, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        batch = problems.batch_of(problems.pictures(Problem(), seed=step))
        for group in optimizer.param_groups:
            group["lr"] = 1e-2
        model(batch, problems.random(step)).total.backward()
        optimizer.step()
        optimizer.zero_grad()


def test_going_on_equals_never_having_stopped(tmp_path: Path) -> None:
    """Ten steps equal five, a save, a load into fresh objects, and five more: to the bit."""
    whole = problems.build()
    optimizer = AdamW().build(whole)
    trained(whole, optimizer, range(10))

    half = problems.build()
    optimizer = AdamW().build(half)
    trained(half, optimizer, range(5))
    Saving(
        tmp_path,
        {"model": half.state_dict(), "training/optimizer": optimizer_tensors(optimizer, half)},
        step=5,
        images_seen=10,
        spec_hash="",
        metadata={},
    ).finish()
    found, _ = newest(tmp_path)
    assert found is not None
    again = problems.build()
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.zero_()
    again.load_state_dict(found.read("model"), strict=True)
    optimizer = AdamW().build(again)
    restore_optimizer(optimizer, again, found.read("training/optimizer"))
    trained(again, optimizer, range(5, 10))

    for name, tensor in whole.state_dict().items():
        assert same_bits(again.state_dict()[name], tensor), name


def test_optimizer_state_is_named_by_parameter() -> None:
    model = problems.build()
    optimizer = AdamW().build(model)
    assert optimizer_tensors(optimizer, model) == {}
    trained(model, optimizer, range(1))
    learning = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    names = {f"{name}:{key}" for name in learning for key in ("step", "exp_avg", "exp_avg_sq")}
    assert set(optimizer_tensors(optimizer, model)) == names
    assert optimizer_tensors(optimizer, model)["encoder.norm.bias:step"].item() == 1
