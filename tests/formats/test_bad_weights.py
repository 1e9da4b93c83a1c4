"""Files that cannot be used: one message each, with what is wrong and what to do."""

import argparse
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from formats.models import ENCODER_ALONE, TINY, json_of, read_weights, weights_of, written
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from unmask.channels import ChannelStatistics
from unmask.errors import DataError, ResourceError, RunError, SettingsError
from unmask.formats import FORMATS, Hints
from unmask.formats.timm import published_encoder

KNOWN = Hints(num_heads=3, decoder_heads=2)


def plain(**changes: Tensor | None) -> dict[str, Tensor]:
    """An encoder in timm's names, with changes; None takes a tensor away."""
    tensors: dict[str, Any] = {**published_encoder(weights_of(ENCODER_ALONE))}
    for name, tensor in changes.items():
        tensors[name.replace("__", ".")] = tensor
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def saved(tmp_path: Path, tensors: dict[str, Tensor]) -> Path:
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_half_downloaded(tmp_path: Path, layout: str, share: float) -> None:
    file = written(weights_of(ENCODER_ALONE), tmp_path / "folder", layout)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(
        DataError, match=rf"{file.name} is damaged, incompletely downloaded, or not a weight file"
    ):
        read_weights(file)


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors", "x.bin"])
def test_text(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("<!DOCTYPE html><p>404</p>")
    with pytest.raises(
        DataError, match=r"is damaged, incompletely downloaded, or not a weight file"
    ):
        read_weights(tmp_path / name)


def test_pickle_of_a_training_script(tmp_path: Path) -> None:
    content = {"model": plain(), "args": argparse.Namespace(lr=1)}
    torch.save(content, tmp_path / "checkpoint-799.pth")
    with pytest.raises(
        DataError,
        match=r"with more than tensors \(argparse.Namespace\).* save only its tensors:",
    ):
        read_weights(tmp_path / "checkpoint-799.pth")


@pytest.mark.parametrize("protocol", [2, 4])
def test_bare_pickle(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "x.pth").write_bytes(pickle.dumps(argparse.Namespace(), protocol))
    with pytest.raises(DataError, match=r"is a pickle with more than tensors"):
        read_weights(tmp_path / "x.pth")


def test_torch_file_without_tensors(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "x.pth")
    with pytest.raises(DataError, match=r"x\.pth has no named tensors"):
        read_weights(tmp_path / "x.pth")


@pytest.mark.parametrize("place", ["safetensors", "pth"])
def test_newer_format(tmp_path: Path, place: str) -> None:
    layout = "unmask" if place == "safetensors" else "fair"
    weights = weights_of(replace(ENCODER_ALONE, format=3))
    file = written(weights, tmp_path / "folder", layout)
    with pytest.raises(
        RunError, match=r"has model format 3, and this unmask reads up to 2; install"
    ):
        read_weights(file)


def test_unreadable_description(tmp_path: Path) -> None:
    file = written(weights_of(ENCODER_ALONE), tmp_path / "folder", "unmask")
    with safe_open(file, "pt") as opened:
        note = json.loads(opened.metadata()["unmask"])
    for text, words in (("{", "Expecting"), (json.dumps({**note, "imagesize": 3}), "image_size")):
        save_file(load_file(file), file, {"unmask": text})
        with pytest.raises(DataError, match=rf"model description in .* cannot be read: .*{words}"):
            read_weights(file)


def test_ours_without_metadata(tmp_path: Path) -> None:
    file = written(weights_of(), tmp_path / "folder", "unmask")
    save_file(load_file(file), file)
    with pytest.raises(DataError, match=r"metadata that describe the model are gone"):
        read_weights(file)


def test_another_architecture(tmp_path: Path) -> None:
    resnet = timm.create_model("resnet10t")
    file = saved(tmp_path, resnet.state_dict())
    with pytest.raises(
        DataError,
        match=r"has an architecture that unmask does not know \(its largest tensors: .*\[512, 512, 3, 3\]",
    ):
        read_weights(file)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("blocks.0.ls1.gamma", [24]),
        ("reg_token", [1, 4, 24]),
        ("blocks.1.attn.q_norm.weight", [8]),
        ("dist_token", [1, 1, 24]),
        ("norm_pre.weight", [24]),
        ("blocks.0.mlp.w12.weight", [8, 8]),
        ("patch_embed.backbone.stem.conv.weight", [8, 3, 7, 7]),
    ],
)
@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_no_plain_vit(tmp_path: Path, ending: str, name: str, shape: list[int]) -> None:
    tensors = {**plain(), name: torch.zeros(shape)}
    file = saved(tmp_path, tensors)
    if ending == "pth":
        file = tmp_path / "x.pth"
        torch.save({"model": tensors}, file)
    with pytest.raises(DataError) as caught:
        read_weights(file, KNOWN)
    assert f"parameters that a plain ViT does not have: {name} {shape}; " in str(caught.value)
    assert "no LayerScale" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"norm__bias": None}, "norm.bias is missing"),
        ({"blocks__1__attn__qkv__bias": None}, "blocks.1.attn.qkv.bias is missing"),
        (
            {"blocks__0__attn__proj__weight": torch.zeros(24, 30)},
            r"blocks.0.attn.proj.weight has shape \[24, 30\] instead of \[24, 24\]",
        ),
        ({"cls_token": None}, "cls_token is missing"),
        (
            {"pos_embed": torch.zeros(1, 16, 24)},
            "positions for 15 patches, which do not make up a",
        ),
        ({"patch_embed__proj__weight": torch.zeros(24, 3, 4, 2)}, r"patches of shape \[4, 2\]"),
        (
            {"patch_embed__proj__weight": torch.zeros(24, 3, 2, 4, 4)},
            r"patches of shape \[2, 4, 4\]",
        ),
    ],
)
def test_shapes_that_do_not_fit(
    tmp_path: Path, changes: dict[str, Tensor | None], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        read_weights(saved(tmp_path, plain(**changes)), KNOWN)


def test_description_of_another_model(tmp_path: Path) -> None:
    """The shapes are compared, and not believed."""
    weights = weights_of(ENCODER_ALONE)
    other = replace(ENCODER_ALONE, encoder=replace(TINY.encoder, mlp_ratio=4.0))
    file = written(weights._replace(spec=other), tmp_path / "folder", "unmask")
    with pytest.raises(
        DataError,
        match=r"fc1.weight has shape \[72, 24\] instead of \[96, 24\], blocks.0.mlp.fc1.bias",
    ):
        read_weights(file)


def test_unknown_heads(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError,
        match=r"does not say how many attention heads it has at width 24 .* --heads N`",
    ):
        read_weights(saved(tmp_path, plain()))


def test_unknown_heads_of_a_decoder(tmp_path: Path) -> None:
    file = written(weights_of(), tmp_path / "folder", "fair")
    torch.save({"model": torch.load(file, weights_only=True)["model"]}, file)
    with pytest.raises(SettingsError, match=r"width 16 .* --to unmask --decoder-heads N`"):
        read_weights(file, Hints(num_heads=3))


def test_heads_that_do_not_divide(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"5 heads do not divide the width of 24"):
        read_weights(saved(tmp_path, plain()), Hints(num_heads=5))


def test_unknown_statistics(tmp_path: Path) -> None:
    tensors = plain(patch_embed__proj__weight=torch.zeros(24, 5, 4, 4))
    with pytest.raises(DataError, match=r"does not say how its 5 channels are normalised"):
        read_weights(saved(tmp_path, tensors), KNOWN)
    beside = {"image_mean": [0.5] * 5, "image_std": [0.1] * 5}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(beside))
    (tmp_path / "config.json").write_text(
        json.dumps({"pretrained_cfg": {"mean": [0.5] * 5, "std": [0.1] * 5}})
    )
    found = read_weights(tmp_path, KNOWN).spec.statistics
    assert isinstance(found, ChannelStatistics)
    assert found.mean == (0.5,) * 5


def test_another_activation(tmp_path: Path) -> None:
    file = written(weights_of(ENCODER_ALONE), tmp_path / "folder", "huggingface")
    config = json_of(file.parent / "config.json")
    (file.parent / "config.json").write_text(json.dumps({**config, "hidden_act": "quick_gelu"}))
    with pytest.raises(DataError, match=r"activation 'quick_gelu', and unmask only has gelu"):
        read_weights(file)


def test_broken_configuration(tmp_path: Path) -> None:
    file = written(weights_of(ENCODER_ALONE), tmp_path / "folder", "timm")
    (file.parent / "config.json").write_text("{")
    with pytest.raises(DataError, match=r"config\.json, next to the weights, cannot be read"):
        read_weights(file)


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no run .* with one weight file \(found: none\)|neither"):
        read_weights(tmp_path)
    for name in ("a.pth", "b.pth"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"one weight file \(found: a.pth, b.pth\); give the"):
        read_weights(tmp_path)
    with pytest.raises(DataError, match=r"gone\.pth does not exist"):
        read_weights(tmp_path / "gone.pth")


def test_destination(tmp_path: Path) -> None:
    weights = weights_of(ENCODER_ALONE)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "photo.png").touch()
    with pytest.raises(RunError, match=r"full exists and is not empty"):
        written(weights, tmp_path / "full", "timm")
    with pytest.raises(SettingsError, match=r"only --to fair writes a single file; give a folder"):
        written(weights, tmp_path / "x.pth", "timm")
    (tmp_path / "x.md").touch()
    with pytest.raises(RunError, match=r"x\.pth or its \.md exists already"):
        written(weights, tmp_path / "x.pth", "fair")
    with pytest.raises(ResourceError, match=r"cannot be written"):
        written(weights, tmp_path / "x.md" / "y", "fair")
