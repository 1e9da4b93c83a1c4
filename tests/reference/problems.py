"""Tiny random problems to compare on, and the published names of the package's parameters."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from unmask.annotations import ClassLabels
from unmask.channels import Statistics
from unmask.contracts import Batch, Size
from unmask.encoders.vit import VisionTransformer, ViT
from unmask.masking import RandomMasking
from unmask.masks import PatchMask
from unmask.objectives.decoders import SelfAttentionDecoder
from unmask.objectives.mae import MAE, MaskedAutoencoder
from unmask.recipes.recipe import Recipe
from unmask.targets import AnyTarget, NormalizedPixels

NORMALIZED = NormalizedPixels()


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A shape of images and of a model."""

    size: Size = Size(16, 16)
    channels: int = 3
    patch_size: int = 4
    ratio: float = 0.75
    width: int = 24
    heads: int = 3
    decoder_width: int = 16
    decoder_heads: int = 2


def build(problem: Problem = Problem(), target: AnyTarget = NORMALIZED) -> MaskedAutoencoder:
    """A small MAE. Norms and biases are moved off 1 and 0, so that forgetting one is noticed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        encoder = build_encoder(problem)
        spec = MAE(
            masking=RandomMasking(ratio=problem.ratio),
            target=target,
            decoder=SelfAttentionDecoder(
                embed_dim=problem.decoder_width, depth=2, num_heads=problem.decoder_heads
            ),
        )
        model = spec.build(encoder)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return model


def of_recipe(recipe: Recipe) -> MaskedAutoencoder:
    """A recipe's model, its weights of no particular draw."""
    encoder = recipe.encoder.build(recipe.image_size, 3, statistics(3))
    return recipe.objective.build(encoder)


def build_encoder(problem: Problem = Problem()) -> VisionTransformer:
    """Its encoder alone, with channel statistics that differ from channel to channel."""
    spec = ViT(
        patch_size=problem.patch_size, embed_dim=problem.width, depth=2, num_heads=problem.heads
    )
    return spec.build(problem.size, problem.channels, statistics(problem.channels))


def statistics(channels: int) -> Statistics:
    """Means and deviations that no two channels share."""
    steps = torch.arange(channels) / 10
    return Statistics(0.3 + steps, 0.2 + steps)


def pictures(problem: Problem, count: int = 2, seed: int = 0) -> Tensor:
    """Random uint8 images."""
    shape = (count, problem.channels, *problem.size)
    return torch.randint(256, shape, generator=random(seed), dtype=torch.uint8)


def batch_of(images: Tensor) -> Batch:
    """The images as the loader would give them."""
    numbers = torch.arange(len(images))
    return Batch((images,), numbers, numbers, 0)


def example(problem: Problem = Problem()) -> Callable[[int], Batch]:
    """Batches of so many random images, to measure with."""
    return lambda count: batch_of(pictures(problem, count))


def normalized(images: Tensor, channels: int) -> Tensor:
    """uint8 images in float64, minus the mean and over the deviation of each channel."""
    mean, std = (value.double()[:, None, None] for value in statistics(channels))
    return (images.double() / 255 - mean) / std


def random(seed: int) -> torch.Generator:
    """A generator with a fixed seed."""
    return torch.Generator().manual_seed(seed)


def first_patches_kept(batch: int, patches: int, kept: int) -> PatchMask:
    """A mask that keeps the first patches of every image."""
    removed = torch.arange(patches).expand(batch, -1) >= kept
    return PatchMask.of(removed)


def mask_of(model: MaskedAutoencoder, images: Tensor, generator: torch.Generator) -> PatchMask:
    """A mask for these images, by the model's masking."""
    return model.masking.sample(len(images), model.grid_of(images), generator)


def errors_of(model: MaskedAutoencoder, images: Tensor, mask: PatchMask) -> Tensor:
    """The target's error of each hidden patch, [m r]."""
    truth = model.target(images, mask, model.encoder.statistics)
    return model.target.loss(model.predict(images, mask), truth)


def published_name(name: str) -> str:
    """The name that the published weights give a parameter of ours."""
    owner, _, rest = name.partition(".")
    if owner == "encoder" or rest == "mask_token":
        return rest
    return f"decoder_{rest}"


def our_name(published: str) -> str:
    """The inverse of `published_name`."""
    if published == "mask_token":
        return "decoder.mask_token"
    if published.startswith("decoder_"):
        return f"decoder.{published.removeprefix('decoder_')}"
    return f"encoder.{published}"


def classes(count: int) -> ClassLabels:
    """So many classes, called by their numbers."""
    return ClassLabels(names=tuple(map(str, range(count))))
