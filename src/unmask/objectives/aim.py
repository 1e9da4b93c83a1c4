"""Autoregressive image models (AIM; El-Nouby and others, 2024): each patch from those before it, row by row."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from unmask.contracts import Batch, Loss, Size
from unmask.encoders.layers import NORM_EPSILON, Mlp, initialize
from unmask.encoders.positions import resized, sine_cosine
from unmask.encoders.vit import VisionTransformer, layer_around
from unmask.errors import SettingsError
from unmask.masks import PatchMask
from unmask.patches import size_of
from unmask.targets import AnyTarget, NormalizedPixels

_MLP_RATIO = 4.0


@dataclass(frozen=True, kw_only=True)
class AIM:
    """Guess the next patch in reading order from all before it (section 3).

    The first patches of an image, a number drawn for each, see one another and are not guessed, so that the
    encoder can be used with full attention afterwards. Departures, so that encoders stay comparable: it has
    biases and a class token, which belongs to the first patches.
    """

    target: AnyTarget = NormalizedPixels()
    """What of the next patch is guessed; codes are worse than normalised pixels (their table 2)."""

    head_dim: int = 2048
    """Width of the MLPs that guess, each token on its own; thrown away after pretraining."""

    head_depth: int = 12
    """How many there are; without them linear probes lose 6 points (their ablation)."""

    def __post_init__(self) -> None:
        for name, usual in (("head_dim", 2048), ("head_depth", 12)):
            if getattr(self, name) < 1:
                raise SettingsError(
                    f"{name} must be at least 1, got {getattr(self, name)}; AIM uses {usual}"
                )

    def in_words(self, kept: int, patches: int, size: Size) -> tuple[str, str]:
        """In which order patches are guessed."""
        return "order", (
            f"each of {patches} patches of {size} pixels is guessed from those before it, row by row; the first "
            "of an image, as many as are drawn, are given"
        )

    def build(self, encoder: VisionTransformer) -> "AutoregressiveImageModel":
        """The module around an encoder."""
        return AutoregressiveImageModel(self, encoder)


class MlpBlock(nn.Module):
    """A pre-norm MLP beside a straight path."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(embed_dim, eps=NORM_EPSILON)
        self.mlp = Mlp(embed_dim, int(embed_dim * _MLP_RATIO))

    def forward(self, tokens: Float[Tensor, "b k e"]) -> Float[Tensor, "b k e"]:
        """Each token on its own."""
        return tokens + self.mlp(self.norm(tokens))


class NextPatchHead(nn.Module):
    """From the token of a patch to a guess for the next: positions once more, then MLPs."""

    def __init__(self, spec: AIM, encoder: VisionTransformer, out_dim: int) -> None:
        super().__init__()
        self.grid = encoder.grid
        table = sine_cosine(encoder.embed_dim, encoder.grid).float()[None]
        self.pos_embed = nn.Parameter(table, requires_grad=False)
        self.embed = nn.Linear(encoder.embed_dim, spec.head_dim)
        self.blocks = nn.ModuleList(MlpBlock(spec.head_dim) for _ in range(spec.head_depth))
        self.norm = nn.LayerNorm(spec.head_dim, eps=NORM_EPSILON)
        self.pred = nn.Linear(spec.head_dim, out_dim)
        initialize(self)

    def forward(self, patches: Float[Tensor, "b k d"], grid: Size) -> Float[Tensor, "b k p"]:
        """Guesses from the tokens of the first k patches of an image."""
        places = resized(self.pos_embed, self.grid, grid)[0, 1:]
        tokens = self.embed(patches + places[: patches.shape[1]])
        for block in self.blocks:
            tokens = block(tokens)
        return self.pred(self.norm(tokens))


class AutoregressiveImageModel(nn.Module):
    """See `AIM`."""

    def __init__(self, spec: AIM, encoder: VisionTransformer) -> None:
        super().__init__()
        self.encoder = encoder
        self.target = spec.target.build(encoder.patch_size, encoder.channels)
        self.head = NextPatchHead(spec, encoder, self.target.out_dim)

    @property
    def layers(self) -> int:
        """The encoder's; the last for all else."""
        return self.encoder.layers

    def layer_of(self, parameter_name: str) -> int:
        """The encoder's layers; the last for head and target."""
        return layer_around(self.encoder, parameter_name)

    def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
        """Draw how many patches of each image are given, and score the guesses for the others.

        The mean is over all scored patches of the step, of which images have different numbers.
        """
        grid = self.encoder.mask_grid(size_of(batch.images))
        patches = grid.height * grid.width
        prefix = draw_prefixes(batch.whole, patches, generator)
        scored = (patches - prefix).float().mean()  # of an image of the whole step
        errors = self.errors(batch.images, batch.own(prefix))
        return Loss(errors.sum(1).mean() / scored, {})

    def errors(
        self, images: Shaped[Tensor, "b c h w"], prefix: Int[Tensor, "b"]
    ) -> Float[Tensor, "b k"]:
        """The target's error of each patch but the first, in reading order; 0 for those that are given."""
        guesses = self.predict(images, prefix)
        truth = self.target(images, all_but_the_first(guesses), self.encoder.statistics)
        places = torch.arange(1, guesses.shape[1] + 1, device=images.device)
        return self.target.loss(guesses, truth) * (places >= prefix[:, None])

    def predict(
        self, images: Shaped[Tensor, "b c h w"], prefix: Int[Tensor, "b"]
    ) -> Float[Tensor, "b k p"]:
        """A guess for each patch but the first, in reading order, in the units of the target."""
        grid = self.encoder.mask_grid(size_of(images))
        tokens = self.encoder.class_tokens + grid.height * grid.width - 1  # no one asks the last
        attends = prefix_attention(prefix + self.encoder.class_tokens, tokens)
        return self.head(self.encoder.encode_attending(images, attends).patches, grid)


def draw_prefixes(images: int, patches: int, generator: torch.Generator) -> Int[Tensor, "images"]:
    """How many patches of each image are given: from one to all but one, each number as likely.

    Raises:
        SettingsError: if an image has one patch.
    """
    if patches < 2:
        raise SettingsError(
            "an image of one patch has no next one to guess; use a larger image (--image-size) or a smaller patch"
        )
    return torch.randint(1, patches, (images,), generator=generator, device=generator.device)


def prefix_attention(prefix: Int[Tensor, "b"], tokens: int) -> Bool[Tensor, "b t t"]:
    """Which token (first) may look at which: those of the prefix, those before it, and itself."""
    places = torch.arange(tokens, device=prefix.device)
    return (places <= places[:, None]) | (places < prefix[:, None, None])


def all_but_the_first(guesses: Float[Tensor, "b k p"]) -> PatchMask:
    """The mask of images of k + 1 patches that names all but the first, in reading order."""
    images, others = guesses.shape[:2]
    order = torch.arange(others + 1, device=guesses.device).expand(images, -1)
    return PatchMask.in_order(torch.arange(images, device=guesses.device), order, kept=1)
