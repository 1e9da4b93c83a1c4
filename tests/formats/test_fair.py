"""The published layout: tensors and outputs recorded from the published code."""

from pathlib import Path
from typing import Any

import pytest
import torch
from formats.models import TINY, close, weights_of, written
from reference import problems

from unmask.channels import ChannelStatistics
from unmask.formats import Hints, read_named
from unmask.masking.random import mask_from_noise

UNCHANGED = ChannelStatistics(
    mean=(0.0,) * 3, std=(1.0,) * 3, low=(0.0,) * 3, high=(1.0,) * 3, source="none"
)


@pytest.mark.parametrize(
    ("name", "file"),
    [("mae_tiny_normpix", "mae_pretrain_full.pth"), ("mae_tiny_pixel", "mae_visualize.pth")],
)
def test_published_weights_give_the_published_loss(
    tmp_path: Path, vectors: Any, name: str, file: str
) -> None:
    found, settings = vectors(name)
    tensors = {
        key.removeprefix("weights."): value
        for key, value in found.items()
        if key.startswith("weights.")
    }
    torch.save({"model": tensors}, tmp_path / file)
    hints = Hints(num_heads=settings["heads"], decoder_heads=settings["decoder_heads"])
    layout, weights = read_named(tmp_path / file, hints)

    assert layout == "fair"
    spec = weights.spec
    assert (spec.encoder.depth, spec.encoder.embed_dim) == (settings["depth"], settings["dim"])
    mean, std = UNCHANGED.tensors()
    model = weights._replace(encoder={**weights.encoder, "mean": mean, "std": std})
    objective = model.build_objective()
    images = found["images"]  # normalised already
    mask = mask_from_noise(found["noise"], settings["mask_ratio"])
    close(problems.errors_of(objective, images, mask).mean(), found["loss"].squeeze())
    close(objective.predict_all(images, mask), found["pred"])


def test_names_are_the_published_ones(tmp_path: Path, vectors: Any) -> None:
    found, _ = vectors("mae_tiny_normpix")
    published = {key.removeprefix("weights.") for key in found if key.startswith("weights.")}
    file = written(weights_of(), tmp_path / "folder", "fair")
    assert file.name == "mae_pretrain_full.pth"
    content = torch.load(file, weights_only=True)
    assert set(content) == {"model", "unmask"}
    assert set(content["model"]) == published
    assert content["model"]["decoder_pos_embed"].shape == (1, 17, 16)
    assert TINY.image_size == (16, 16)


def test_one_file_where_one_is_asked_for(tmp_path: Path) -> None:
    file = written(weights_of(), tmp_path / "mine.pth", "fair")
    assert file == tmp_path / "mine.pth"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.md", "mine.pth"]
