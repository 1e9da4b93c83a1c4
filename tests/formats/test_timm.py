"""timm's ViT: weights copied over in both directions give the same features."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from formats import models
from formats.models import (
    ENCODER_ALONE,
    WHOLE_B16,
    close,
    normalized,
    pictures,
    read_weights,
    weights_of,
    written,
)
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer

from unmask.encoders.vit import VIT_B16
from unmask.formats import FORMATS, write_weights
from unmask.formats.timm import Timm

B16 = "vit_base_patch16_224"


def theirs_of(**changes: Any) -> Any:
    arguments = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3}
    return models.shaken(VisionTransformer(**{**arguments, "num_classes": 0, **changes}))


def saved(model: Any, folder: Path, **arguments: Any) -> Path:
    """A file and a configuration as on the Hub."""
    import json

    folder.mkdir(exist_ok=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    config = {"architecture": B16, "model_args": {"num_heads": 3, **arguments}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@torch.no_grad()
def test_from_timm(tmp_path: Path) -> None:
    theirs = theirs_of()
    encoder = read_weights(saved(theirs, tmp_path / "x")).build_encoder()
    images = pictures(2, 3, 16, 16)
    ours = encoder.encode(images)
    close(torch.cat([ours.cls, ours.patches], 1), theirs.forward_features(normalized(images)))


@pytest.mark.slow
@torch.no_grad()
def test_whole_base_model_to_timm(tmp_path: Path) -> None:
    weights = weights_of(replace(WHOLE_B16, objective=None))
    file = written(weights, tmp_path / "folder", "timm")
    theirs = timm.create_model(B16, num_classes=0).eval()
    theirs.load_state_dict(load_file(file), strict=True)
    images = pictures(1, 3, 224, 224)
    ours = weights.build_encoder().encode(images)
    close(torch.cat([ours.cls, ours.patches], 1), theirs.forward_features(normalized(images)))


@pytest.mark.slow
@torch.no_grad()
def test_whole_base_model_from_timm(tmp_path: Path) -> None:
    theirs = models.shaken(timm.create_model(B16, num_classes=0))
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    weights = read_weights(tmp_path / "model.safetensors")
    assert weights.spec.encoder == VIT_B16  # heads are known from the width
    images = pictures(1, 3, 224, 224)
    ours = weights.build_encoder().encode(images)
    found: Any = theirs
    close(torch.cat([ours.cls, ours.patches], 1), found.forward_features(normalized(images)))


@torch.no_grad()
def test_mean_pooling_renames_the_norm(tmp_path: Path) -> None:
    weights, layout = weights_of(ENCODER_ALONE), Timm(pool="mean")
    file = write_weights(weights, tmp_path / "folder", layout, "")
    assert {"fc_norm.weight", "fc_norm.bias"} <= set(load_file(file))
    theirs: Any = timm.create_model(f"local-dir:{file.parent}", pretrained=True).eval()
    assert (theirs.global_pool, type(theirs.norm).__name__) == ("avg", "Identity")
    check = layout.check(weights, file)
    assert check is not None
    assert check.difference < 1e-5
    back = read_weights(file)
    models.assert_same(back.encoder, weights.encoder)
    assert "fc_norm is read as the last norm" in back.notes[0]


def test_positions_are_read_and_not_computed(tmp_path: Path) -> None:
    weights = weights_of(ENCODER_ALONE)
    found = read_weights(written(weights, tmp_path / "folder", "timm")).build_encoder()
    assert found.pos_embed.equal(weights.encoder["pos_embed"])


def test_classifiers_are_left_out_and_said(tmp_path: Path) -> None:
    weights = read_weights(saved(theirs_of(num_classes=5), tmp_path / "x"))
    assert weights.notes == (
        "left out, because it belongs to a classifier: head.bias, head.weight",
    )


@pytest.mark.parametrize("layout", ["timm", "fair"])
def test_both_name_the_encoder_alike(layout: str) -> None:
    assert FORMATS[layout] is not None
    from unmask.formats.timm import published_encoder

    names = set(published_encoder(weights_of()))
    assert names == set(theirs_of(mlp_ratio=3.0).state_dict())
