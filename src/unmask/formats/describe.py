"""Infer the `ModelSpec` of a file without one from the shapes of its tensors."""

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unmask.channels import IMAGENET, ChannelStatistics
from unmask.contracts import Size
from unmask.encoders.vit import ViT
from unmask.errors import DataError, SettingsError, listed
from unmask.formats.files import TensorFile
from unmask.formats.model import FORMAT, ModelSpec, Weights
from unmask.masking import AnyMasking, RandomMasking
from unmask.objectives.decoders import SelfAttentionDecoder
from unmask.objectives.mae import MAE
from unmask.spec import to_json
from unmask.targets import AnyTarget, NormalizedPixels

_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}
"""Attention heads of the usual encoders by width: Ti and S from DeiT table 1, B to H from Dosovitskiy and others (2021)."""

_DECODER_HEADS = {512: 16}
"""Attention heads of MAE's published decoders by width."""

_NEEDED = {
    "cls_token": 3,
    "pos_embed": 3,
    "patch_embed.proj.weight": None,
    "blocks.0.mlp.fc1.weight": 2,
}
_DECODER_NEEDED = {
    "embed.weight": 2,
    "pos_embed": 3,
    "blocks.0.mlp.fc1.weight": 2,
    "pred.weight": 2,
}
"""Tensors that say what a model is, with their number of dimensions (None if another message tells of it)."""


@dataclass(frozen=True, kw_only=True)
class Hints:
    """What the user says about a model: the number of heads cannot be seen in the shapes of weights."""

    num_heads: int | None = None
    """Attention heads of the encoder."""

    decoder_heads: int | None = None
    """Attention heads of the decoder."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a file says about its model, in addition to the tensors. None means that it does not say."""

    origin: str
    """Where the weights come from, in words."""

    num_heads: int | None = None
    """Attention heads of the encoder; by default the usual number for its width."""

    decoder_heads: int | None = None
    """Attention heads of the decoder; by default the usual number for its width."""

    image_size: Size | None = None
    """Size of an image; by default a square."""

    target: AnyTarget = NormalizedPixels()
    """What the decoder predicts."""

    masking: AnyMasking = RandomMasking()
    """Masking in pretraining."""

    statistics: ChannelStatistics | None = None
    """Statistics that images are normalised with; by default ImageNet's."""


def assembled(
    file: TensorFile,
    encoder: dict[str, Tensor],
    decoder: dict[str, Tensor],
    facts: Facts,
    hints: Hints,
    notes: tuple[str, ...] = (),
) -> Weights:
    """Weights with the spec of the file, or one inferred from the shapes; tensors have our names.

    Raises:
        DataError: if the tensors are not those of a plain ViT, with the differences.
        SettingsError: if the number of heads is not known.
    """
    spec = file.spec or _described(file.path, encoder, decoder, facts, hints)
    if not decoder:
        spec = replace(spec, objective=None)
    mean, std = spec.statistics.tensors()
    weights = Weights(spec, {**encoder, "mean": mean, "std": std}, decoder, notes)
    check_fit(weights, file.path)
    return weights


def check_fit(weights: Weights, path: Path) -> None:
    """Refuse tensors that are not exactly those of the model that the spec describes."""
    spec = weights.spec
    tensors = weights.whole if weights.decoder else weights.encoder
    if (clauses := _too_deep(to_json(spec), len(tensors))) or (clauses := _other_grid(weights)):
        raise DataError(f"{path} does not hold the model that it describes: {listed(clauses)}")
    try:
        with torch.device("meta"):
            module = spec.build_objective() if weights.decoder else spec.build_encoder()
    except (SettingsError, ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"{path} describes a model that cannot be built: {error}") from None
    if clauses := differences(module.state_dict(), tensors):
        raise DataError(
            f"{path} is not a plain ViT: {listed(clauses)}; unmask reads a ViT with a class token, one position "
            "table and pre-norm blocks"
        )


def _too_deep(values: Any, tensors: int) -> list[str]:
    """A clause for each depth in a spec that so few tensors cannot have: each block has some, and is built to be compared."""
    clauses: list[str] = []
    for name, value in values.items() if isinstance(values, dict) else ():
        if name.endswith("depth") and isinstance(value, int) and value > tensors:
            clauses.append(f"{name} is {value:,}, and there are only {tensors:,} tensors")
        clauses += _too_deep(value, tensors)
    return clauses


def _other_grid(weights: Weights) -> list[str]:
    """A clause if there are positions for another number of patches than the image size has."""
    spec, positions = weights.spec, weights.encoder.get("pos_embed")
    if positions is None or positions.ndim != 3:
        return []
    height, width = (side // spec.encoder.patch_size for side in spec.image_size)
    if positions.shape[1] == 1 + height * width:
        return []
    return [
        f"images of {spec.image_size} pixels, and positions for {positions.shape[1] - 1:,} patches"
    ]


def differences(expected: Mapping[str, Tensor], actual: Mapping[str, Tensor]) -> list[str]:
    """A clause for each tensor that is missing, unknown, or has another shape."""
    clauses = [f"{name} is missing" for name in expected if name not in actual]
    clauses += [f"{name} is unknown" for name in actual if name not in expected]
    for name in expected:
        if name in actual and expected[name].shape != actual[name].shape:
            shape, expected_shape = list(actual[name].shape), list(expected[name].shape)
            clauses.append(f"{name} has shape {shape} instead of {expected_shape}")
        elif (
            name in actual
            and expected[name].is_floating_point() != actual[name].is_floating_point()
        ):
            clauses.append(
                f"{name} has values of type {str(actual[name].dtype).removeprefix('torch.')}"
            )
    return clauses


def refuse_unknown(path: Path, unknown: dict[str, Tensor]) -> None:
    """Raises DataError with the parameters that a plain ViT does not have."""
    if unknown:
        names = listed(f"{name} {list(tensor.shape)}" for name, tensor in unknown.items())
        raise DataError(
            f"{path} has parameters that a plain ViT does not have: {names}; unmask only reads plain ViTs "
            "(no LayerScale, registers, distillation token, query norm, convolutional stem or SwiGLU)"
        )


def _described(
    path: Path,
    encoder: dict[str, Tensor],
    decoder: dict[str, Tensor],
    facts: Facts,
    hints: Hints,
) -> ModelSpec:
    _refuse_missing(path, encoder, _NEEDED)
    patches = encoder["patch_embed.proj.weight"]
    if patches.ndim != 4 or patches.shape[2] != patches.shape[3]:
        raise DataError(
            f"{path} has patches of shape {list(patches.shape[2:])}; unmask only reads models with square patches"
        )
    width, channels, side, _ = patches.shape
    hidden = len(encoder["blocks.0.mlp.fc1.weight"])
    num_heads = hints.num_heads or facts.num_heads or _HEADS.get(width)
    return ModelSpec(
        format=FORMAT,
        encoder=ViT(
            patch_size=side,
            embed_dim=width,
            depth=_blocks(path, encoder),
            num_heads=_known(num_heads, path, width, "--heads"),
            mlp_ratio=_ratio(hidden, width),
        ),
        objective=_objective(path, decoder, facts, hints) if decoder else None,
        image_size=facts.image_size or _square(path, encoder["pos_embed"], side),
        channels=channels,
        statistics=_statistics(path, facts, channels),
        origin=facts.origin,
    )


def _objective(path: Path, decoder: dict[str, Tensor], facts: Facts, hints: Hints) -> MAE:
    names = {name.removeprefix("decoder."): tensor for name, tensor in decoder.items()}
    _refuse_missing(path, names, _DECODER_NEEDED, "decoder.")
    width = len(names["embed.weight"])
    num_heads = hints.decoder_heads or facts.decoder_heads or _DECODER_HEADS.get(width)
    spec = SelfAttentionDecoder(
        embed_dim=width,
        depth=_blocks(path, names, "decoder."),
        num_heads=_known(num_heads, path, width, "--decoder-heads"),
        mlp_ratio=_ratio(len(names["blocks.0.mlp.fc1.weight"]), width),
    )
    return MAE(masking=facts.masking, target=facts.target, decoder=spec)


def _refuse_missing(
    path: Path, tensors: dict[str, Tensor], needed: Mapping[str, int | None], prefix: str = ""
) -> None:
    if missing := [f"{prefix}{name}" for name in needed if name not in tensors]:
        raise DataError(
            f"{path} is not a complete ViT: {listed(missing)} is missing (names as in timm); check that the file is "
            "complete"
        )
    for name, dimensions in needed.items():
        shape = tensors[name].shape
        if 0 in shape or len(shape) != (dimensions or len(shape)):
            raise DataError(f"{path} is not a plain ViT: {prefix}{name} has shape {list(shape)}")


def _blocks(path: Path, tensors: dict[str, Tensor], prefix: str = "") -> int:
    """The number of blocks, which must be numbered without gaps."""
    numbers = {name.split(".")[1] for name in tensors if name.startswith("blocks.")}
    missing = [number for number in range(len(numbers)) if str(number) not in numbers]
    if missing:
        raise DataError(
            f"{path} has {len(numbers)} blocks, and {prefix}blocks.{missing[0]} is missing; check that the file is "
            "complete"
        )
    return len(numbers)


def _ratio(hidden: int, width: int) -> float:
    """The mlp_ratio for which `int(width * mlp_ratio)` is `hidden`, despite rounding."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def _known(heads: int | None, path: Path, width: int, flag: str) -> int:
    if heads is None:
        raise SettingsError(
            f"{path} does not say how many attention heads it has at width {width} (most models have 64 channels per "
            f"head: {max(1, round(width / 64))}); add them with `unmask convert {shlex.quote(str(path))} NEW --to unmask {flag} N` and use NEW"
        )
    if heads < 1 or width % heads:
        raise SettingsError(
            f"{heads} heads do not divide the width of {width} in {path}; use another {flag}"
        )
    return heads


def _square(path: Path, positions: Tensor, patch_size: int) -> Size:
    patches = positions.shape[1] - 1
    side = math.isqrt(patches)
    if side * side != patches:
        raise DataError(
            f"{path} has positions for {patches} patches, which do not make up a square, and does not say how many rows "
            "they are; add a config.json in the same folder with image_size: [height, width]"
        )
    return Size(side * patch_size, side * patch_size)


def _statistics(path: Path, facts: Facts, channels: int) -> ChannelStatistics:
    if facts.statistics is not None and len(facts.statistics.mean) == channels:
        return facts.statistics
    if channels == len(IMAGENET.mean):
        return IMAGENET
    raise DataError(
        f"{path} does not say how its {channels} channels are normalised; add a preprocessor_config.json with "
        "image_mean and image_std (one number per channel) in the same folder"
    )
