"""Weights with patches of one size for dense recipes with patches of another, as ViT-H/14 for detect-h16."""

from pathlib import Path

import pytest
import torch
from commands.said import Unmask
from commands.test_dense_command import QUICK
from reference.dense import WRITERS
from runs import tiny
from timm.layers import resample_patch_embed

import unmask as package
from unmask.channels import IMAGENET
from unmask.contracts import Size
from unmask.encoders.vit import ViT
from unmask.formats.files import save_safetensors
from unmask.formats.model import FORMAT, ModelSpec

ENCODER = ViT(patch_size=14, embed_dim=24, depth=4, num_heads=3)
RECIPES = """
from dataclasses import replace
from unmask import ViT
from unmask.contracts import Size
from unmask.recipes.detect import DETECT_H16
from unmask.recipes.finetune import FINETUNE_B16
from unmask.recipes.segment import SEGMENT_TI16
from unmask.tasks.upernet import UperNet

_ENCODER = ViT(patch_size=16, embed_dim=24, depth=4, num_heads=3)
DETECT = replace(
    DETECT_H16, encoder=_ENCODER, image_size=Size(48, 48), epochs=1, batch_size=2,
    task=replace(DETECT_H16.task, channels=8, sampled=8, trained_blocks="0", window=2),
)
SEGMENT = replace(
    SEGMENT_TI16, encoder=_ENCODER, image_size=Size(48, 48), epochs=1, batch_size=2,
    task=replace(SEGMENT_TI16.task, head=UperNet(channels=8), trained_blocks="0"),
)
DEEP = replace(DETECT, encoder=replace(_ENCODER, depth=5))
WHOLE = replace(FINETUNE_B16, encoder=_ENCODER, image_size=Size(48, 48), epochs=1)
"""


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """An encoder with patches of 14, for images of 42 pixels."""
    spec = ModelSpec(
        format=FORMAT,
        encoder=ENCODER,
        objective=None,
        image_size=Size(42, 42),
        channels=3,
        statistics=IMAGENET,
        origin="a tiny ViT/14",
    )
    save_safetensors(tmp_path / "vit.safetensors", spec.build_encoder(0).state_dict(), spec)
    (tmp_path / "own.py").write_text(RECIPES)
    return tmp_path / "vit.safetensors"


@pytest.mark.parametrize(("kind", "recipe"), [("coco", "DETECT"), ("maps", "SEGMENT")])
def test_patches_are_resampled_and_it_is_said(
    weights: Path, tmp_path: Path, unmask: Unmask, kind: str, recipe: str
) -> None:
    WRITERS[kind](tmp_path / "data")
    out, own = tmp_path / "run", f"{tmp_path / 'own.py'}:{recipe}"
    said = unmask("finetune", weights, tmp_path / "data", "--recipe", own, "--out", out, *QUICK)
    assert said.status == 0, said.err
    words = "a tiny ViT/14, patches resampled from 14 to 16 pixels by FlexiViT's pseudo-inverse"
    assert words in said.out
    assert "patches of 16, 48 pixels" in said.out
    assert "positions resampled" not in said.out  # 3 x 3 patches before and after
    old = package.load(weights).encoder.state_dict()
    new = package.load(out).encoder.state_dict()
    expected = resample_patch_embed(old["patch_embed.proj.weight"], [16, 16])
    torch.testing.assert_close(new["patch_embed.proj.weight"], expected, atol=1e-5, rtol=1e-4)
    assert torch.equal(new["blocks.0.attn.qkv.weight"], old["blocks.0.attn.qkv.weight"])


def test_nothing_else_may_differ(weights: Path, tmp_path: Path, unmask: Unmask) -> None:
    WRITERS["coco"](tmp_path / "data")
    own = f"{tmp_path / 'own.py'}:DEEP"
    wrong = unmask("finetune", weights, tmp_path / "data", "--recipe", own, *QUICK)
    assert wrong.status == 1
    assert "the encoder has 4 blocks of 24" in wrong.err
    assert "is for 5 blocks of 24" in wrong.err
    wrong = unmask("finetune", weights, tmp_path / "data", "--recipe", "detect-h16", *QUICK)
    assert "recipe detect-h16 is for 32 blocks of 1280" in wrong.err
    own = f"{tmp_path / 'own.py'}:DETECT"
    wrong = unmask(
        "finetune", weights, tmp_path / "data", "--recipe", own, "--encoder.depth", "5", *QUICK
    )
    assert "but the settings ask for 5 blocks of 24" in wrong.err


def test_classification_keeps_its_patches(weights: Path, tmp_path: Path, unmask: Unmask) -> None:
    classes = tiny.write_classes(tmp_path / "animals")
    own = f"{tmp_path / 'own.py'}:WHOLE"
    wrong = unmask("finetune", weights, classes, "--recipe", own, *QUICK)
    assert wrong.status == 1
    assert "patches of 14, and recipe" in wrong.err
