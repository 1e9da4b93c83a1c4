"""Position tables at other image sizes: the published rule, timm's by name, and the rule of older runs and files."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from commands.said import Unmask
from runs import tiny
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

import unmask as package
from unmask.contracts import Size
from unmask.formats.model import FORMAT
from unmask.runs.folder import RunFolder
from unmask.runs.run import Run

CHOICES = {"bicubic": False, "antialiased": True}
"""Names of the rules, and whether they have antialiasing."""

RISING = ["--epochs", "2", "sizes:rising", "--sizes.first", "4", "--sizes.stages", "2"]


def resampled(table: Tensor, antialias: bool) -> Tensor:
    """A table of 4 x 4 patches for 6 x 4, written out."""
    image = table[:, 1:].reshape(1, 4, 4, -1).permute(0, 3, 1, 2)
    image = F.interpolate(
        image, size=(6, 4), mode="bicubic", align_corners=False, antialias=antialias
    )
    return torch.cat([table[:, :1], image.permute(0, 2, 3, 1).reshape(1, 24, -1)], dim=1)


def table_of(folder: Path | str) -> Tensor:
    return tiny.newest(RunFolder(folder)).read("encoder")["pos_embed"]


@pytest.mark.parametrize(
    "choice", [None, *(pytest.param(choice, marks=pytest.mark.slow) for choice in CHOICES)]
)
def test_init_at_another_size(
    unmask: Unmask, images: Path, trained: RunFolder, recipe: list[str], choice: str | None
) -> None:
    """Fixed tables are not trained, so the last checkpoint has them as they were resampled."""
    flags = [] if choice is None else ["--encoder.position-resampling", choice]
    init = ["--init", trained.root, "--image-size", "12x8"]
    said = unmask("pretrain", images, *recipe, *init, *flags, "--out", "new")
    assert said.status == 0, said.err
    words = "positions resampled from 4 x 4 to 6 x 4"
    assert words in said.out
    assert (f"{words} with antialiasing" in said.out) == (choice == "antialiased")
    expected = resampled(table_of(trained.root), CHOICES[choice or "bicubic"])
    torch.testing.assert_close(table_of("new"), expected, atol=1e-6, rtol=0)
    assert package.load("new").spec.encoder.position_resampling == (choice or "bicubic")


def as_version_3(folder: RunFolder) -> None:
    """The spec of a run as it was before the choice existed."""
    spec = json.loads(folder.spec.read_text())
    spec["spec_version"] = 3
    del spec["job"]["recipe"]["encoder"]["position_resampling"]
    folder.spec.write_text(json.dumps(spec))


def test_an_older_run_goes_on_as_it_began(unmask: Unmask, images: Path, recipe: list[str]) -> None:
    """The first half of the steps is at half the size, so each of them resamples the tables."""
    smooth = ["--encoder.position-resampling", "antialiased"]
    assert unmask("pretrain", images, *recipe, *RISING, *smooth, "--out", "smooth").status == 0
    assert unmask("pretrain", images, *recipe, *RISING, "--out", "today").status == 0
    old = RunFolder("old")
    old.create(Run.read(RunFolder("smooth"), "pretrain"))
    as_version_3(old)
    said = unmask("pretrain", "--resume", "old")
    assert said.status == 0, said.err
    tiny.assert_same_end(old, RunFolder("smooth"))
    losses = [[line["loss"] for line in tiny.timeless(RunFolder(n))] for n in ("smooth", "today")]
    assert losses[0] != losses[1]


def older_copy(file: Path, copy: Path) -> Path:
    """A model file as it was before the choice existed."""
    with safe_open(file, "pt") as opened:
        metadata: dict[str, Any] = opened.metadata()
    spec = json.loads(metadata["unmask"])
    assert spec["format"] == FORMAT == 2
    spec["format"] = 1
    del spec["encoder"]["position_resampling"]
    save_file(load_file(file), copy, {**metadata, "unmask": json.dumps(spec)})
    return copy


def test_an_older_model_file_keeps_its_rule(
    unmask: Unmask, trained: RunFolder, tmp_path: Path
) -> None:
    newest = tiny.newest(trained).folder / "model.safetensors"
    old = package.load(older_copy(newest, tmp_path / "old.safetensors"))
    new = package.load(newest)
    assert old.spec.encoder == replace(new.spec.encoder, position_resampling="antialiased")
    picture = torch.randint(256, (1, 3, 12, 8), generator=torch.Generator().manual_seed(0))
    pixels = picture.to(torch.uint8)
    for model, antialias in ((old, True), (new, False)):
        wide = replace(model.spec, image_size=Size(12, 8)).build_encoder()
        state = model.encoder.state_dict()
        wide.load_state_dict({**state, "pos_embed": resampled(state["pos_embed"], antialias)})
        torch.testing.assert_close(
            model.encoder.encode(pixels).patches, wide.encode(pixels).patches, atol=1e-5, rtol=0
        )
    for layout in ("timm", "unmask"):  # exports remember it
        assert unmask("convert", tmp_path / "old.safetensors", layout, "--to", layout).status == 0
        assert package.load(layout).spec.encoder.position_resampling == "antialiased"


@pytest.mark.slow
def test_older_weights_get_the_recipe_of_their_shape(
    unmask: Unmask, classes: Path, trained: RunFolder, tmp_path: Path
) -> None:
    """A recipe's encoder may resample in another way than the weights say; without one, theirs is kept."""
    newest = tiny.newest(trained).folder / "model.safetensors"
    old = older_copy(newest, tmp_path / "old.safetensors")
    flags = ["--epochs", "1", "--batch-size", "4", "--threads", "1", "--workers", "0"]
    for out, words, choice in (
        ("kept", [], "antialiased"),
        (
            "own",
            ["--recipe", f"{Path(__file__).parent.parent}/runs/tiny_transfer.py:TRANSFER"],
            "bicubic",
        ),
    ):
        said = unmask(
            "finetune", old, classes, *words, *flags, "--image-size", "12x8", "--out", out
        )
        assert said.status == 0, said.err
        run = Run.read(RunFolder(out), "finetune")
        assert run.recipe.encoder.position_resampling == choice
