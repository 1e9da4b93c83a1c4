"""Tiny models with all weights moved off their start, and the tensors of other libraries' ones."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unmask.channels import IMAGENET, ChannelStatistics
from unmask.contracts import Size
from unmask.encoders.vit import VIT_B16, ViT
from unmask.formats import FORMATS, Hints, read_named, write_weights
from unmask.formats.model import FORMAT, ModelSpec, Weights, split
from unmask.masking import RandomMasking
from unmask.objectives.decoders import SelfAttentionDecoder
from unmask.objectives.mae import MAE
from unmask.targets import NormalizedPixels

GREY = ChannelStatistics(mean=(0.4,), std=(0.3,), low=(0.0,), high=(1.0,), source="measured")

TINY = ModelSpec(
    format=FORMAT,
    encoder=ViT(patch_size=4, embed_dim=24, depth=2, num_heads=3, mlp_ratio=3.0),
    objective=MAE(
        masking=RandomMasking(ratio=0.6),
        target=NormalizedPixels(),
        decoder=SelfAttentionDecoder(embed_dim=16, depth=2, num_heads=2, mlp_ratio=2.0),
    ),
    image_size=Size(16, 16),
    channels=3,
    statistics=IMAGENET,
    origin="a test",
)
ENCODER_ALONE = replace(TINY, objective=None)
WIDE = replace(TINY, image_size=Size(8, 24))
GREY_ONE = replace(TINY, channels=1, statistics=GREY)
BANDS = ChannelStatistics(
    mean=(900.0,) * 5,
    std=(300.0,) * 5,
    low=(0.0,) * 5,
    high=(3000.0,) * 5,
    values="float32",
    source="measured",
)
BANDED = replace(TINY, channels=5, statistics=BANDS)
WHOLE_B16 = replace(TINY, encoder=VIT_B16, objective=MAE(), image_size=Size(224, 224))


def weights_of(spec: ModelSpec = TINY) -> Weights:
    """Weights of which none is 0 or 1, position tables included, so that forgetting one is noticed."""
    module = spec.build_objective() if spec.objective else spec.build_encoder()
    state = module.state_dict()
    random = torch.Generator().manual_seed(3)
    for name, tensor in state.items():
        if name.rpartition(".")[2] not in ("mean", "std"):
            tensor.add_(torch.randn(tensor.shape, generator=random) * 0.05)
    return Weights(spec, *split(state)) if spec.objective else Weights(spec, state, {})


def read_weights(path: Path | str, hints: Hints = Hints()) -> Weights:  # noqa: B008 - frozen
    """The weights of a file or folder in any format."""
    return read_named(path, hints)[1]


def written(weights: Weights, folder: Path, layout: str) -> Path:
    """The file that a layout makes of them."""
    return write_weights(weights, folder, FORMATS[layout], "")


def shaken(module: nn.Module) -> nn.Module:
    """Another library's model with all its parameters moved off their start."""
    random = torch.Generator().manual_seed(4)
    for parameter in module.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=random) * 0.05)
    return module.eval()


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """Same names, and equal to the last bit."""
    assert sorted(one) == sorted(other)
    assert [name for name in one if not one[name].equal(other[name])] == []


def normalized(images: Tensor) -> Tensor:
    """uint8 images as other libraries take them."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET.mean, IMAGENET.std))
    return (images / 255 - mean) / std


def pictures(*shape: int) -> Tensor:
    """Random uint8 images."""
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    """float32 summed in another order."""
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)


def json_of(file: Path) -> Any:
    """The content of a JSON file."""
    import json

    return json.loads(file.read_text())
