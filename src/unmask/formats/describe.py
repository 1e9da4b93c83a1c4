"""What model is this? A `ModelSpec` read off the shapes of tensors, for files that do not say."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from unmask.channels import IMAGENET, ChannelStatistics
from unmask.contracts import Size
from unmask.encoders.vit import ViT
from unmask.errors import DataError, SettingsError
from unmask.formats.files import TensorFile
from unmask.formats.model import FORMAT, ModelSpec, Weights
from unmask.formats.names import listed
from unmask.masking import AnyMasking, RandomMasking
from unmask.objectives.decoders import SelfAttentionDecoder
from unmask.objectives.mae import MAE
from unmask.targets import AnyTarget, NormalizedPixels

_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}
"""Of the usual encoders, by width: Ti and S from DeiT table 1, B to H from Dosovitskiy and others (2021)."""

_DECODER_HEADS = {512: 16}
"""Of MAE's decoder (the published models)."""

_NEEDED = ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.mlp.fc1.weight")
_DECODER_NEEDED = ("embed.weight", "pos_embed", "blocks.0.mlp.fc1.weight", "pred.weight")


@dataclass(frozen=True, kw_only=True)
class Hints:
    """What the user says of a model; heads leave no trace in the shapes of weights."""

    num_heads: int | None = None
    """Attention heads of the encoder."""

    decoder_heads: int | None = None
    """Attention heads of the decoder."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a file says of its model beside the tensors."""

    origin: str
    """Where the weights come from, in words."""

    num_heads: int | None = None
    """Attention heads of the encoder; the usual ones for the width if not said."""

    decoder_heads: int | None = None
    """Attention heads of the decoder; the usual ones for the width if not said."""

    image_size: Size | None = None
    """Size of an image; a square if not said."""

    target: AnyTarget = NormalizedPixels()
    """What the decoder rebuilds."""

    masking: AnyMasking = RandomMasking()
    """What was hidden from the encoder."""

    statistics: ChannelStatistics | None = None
    """What images are normalised with; ImageNet's if not said."""


def assembled(
    file: TensorFile,
    encoder: dict[str, Tensor],
    decoder: dict[str, Tensor],
    facts: Facts,
    hints: Hints,
    notes: tuple[str, ...] = (),
) -> Weights:
    """Weights in our names, with the spec that is written in the file or else read off the shapes.

    Raises:
        DataError: listing the differences, if the tensors are not those of a plain ViT.
        SettingsError: if the number of heads cannot be known.
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
    with torch.device("meta"):
        spec = weights.spec
        module = spec.build_objective() if weights.decoder else spec.build_encoder()
    given = weights.whole if weights.decoder else weights.encoder
    if found := differences(module.state_dict(), given):
        raise DataError(
            f"{path} is not the plain ViT that it looks like: {listed(found)}; unmask reads a ViT with "
            "a class token, one table of positions and pre-norm blocks"
        )


def differences(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """A clause for each tensor that is missing, too much, or of another shape."""
    found = [f"{name} is missing" for name in wanted if name not in given]
    found += [f"{name} is unknown" for name in given if name not in wanted]
    for name in wanted:
        if name in given and wanted[name].shape != given[name].shape:
            here, there = list(given[name].shape), list(wanted[name].shape)
            found.append(f"{name} has shape {here} where {there} belongs")
    return found


def refuse_unknown(path: Path, unknown: dict[str, Tensor]) -> None:
    """Raises DataError naming the parameters that a plain ViT does not have."""
    if unknown:
        named = listed(f"{name} {list(tensor.shape)}" for name, tensor in unknown.items())
        raise DataError(
            f"{path} has parameters that a plain ViT has not: {named}; unmask reads the plain ViT alone "
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
            f"{path} projects patches of shape {list(patches.shape[2:])}; unmask reads square ones"
        )
    width, channels, side, _ = patches.shape
    hidden = len(encoder["blocks.0.mlp.fc1.weight"])
    num_heads = hints.num_heads or facts.num_heads or _HEADS.get(width)
    return ModelSpec(
        format=FORMAT,
        encoder=ViT(
            patch_size=side,
            embed_dim=width,
            depth=_blocks(encoder),
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
        depth=_blocks(names),
        num_heads=_known(num_heads, path, width, "--decoder-heads"),
        mlp_ratio=_ratio(len(names["blocks.0.mlp.fc1.weight"]), width),
    )
    return MAE(masking=facts.masking, target=facts.target, decoder=spec)


def _refuse_missing(
    path: Path, tensors: dict[str, Tensor], needed: tuple[str, ...], prefix: str = ""
) -> None:
    if missing := [f"{prefix}{name}" for name in needed if name not in tensors]:
        raise DataError(
            f"{path} is no whole ViT: it has no {listed(missing)} (names as in timm); is the file whole?"
        )


def _blocks(tensors: dict[str, Tensor]) -> int:
    return 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks."))


def _ratio(hidden: int, width: int) -> float:
    """The mlp_ratio of which `int(width * mlp_ratio)` is `hidden`."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def _known(heads: int | None, path: Path, width: int, flag: str) -> int:
    if heads is None:
        raise SettingsError(
            f"{path} does not say how many attention heads its width of {width} is split into (most "
            f"models have 64 channels a head: {max(1, round(width / 64))}); say it with `unmask convert "
            f"{path} NEW --to unmask {flag} N`, and go on with NEW"
        )
    if heads < 1 or width % heads:
        raise SettingsError(
            f"{heads} heads do not divide the width of {width} in {path}; give another {flag}"
        )
    return heads


def _square(path: Path, positions: Tensor, patch_size: int) -> Size:
    patches = positions.shape[1] - 1
    side = math.isqrt(patches)
    if side * side != patches:
        raise DataError(
            f"{path} has {patches} positions beside the class token's, which is no square, and does not say "
            "how many rows that is; a config.json beside it may say so (image_size: [height, width])"
        )
    return Size(side * patch_size, side * patch_size)


def _statistics(path: Path, facts: Facts, channels: int) -> ChannelStatistics:
    if facts.statistics is not None and len(facts.statistics.mean) == channels:
        return facts.statistics
    if channels == len(IMAGENET.mean):
        return IMAGENET
    raise DataError(
        f"{path} does not say what its {channels} channels are normalised with; put a "
        "preprocessor_config.json with image_mean and image_std (a number for each channel) beside it"
    )


def customary_range(mean: list[float], std: list[float], source: str) -> ChannelStatistics:
    """Statistics of pixels that are counted from 0 to 1, as all other libraries do."""
    count = len(mean)
    return ChannelStatistics(
        mean=tuple(map(float, mean)),
        std=tuple(map(float, std)),
        low=(0.0,) * count,
        high=(1.0,) * count,
        source=source,
    )
