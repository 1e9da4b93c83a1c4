"""Autoregressive image models (AIM; El-Nouby and others, 2024): predict each patch from all patches before it."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from unmask.contracts import Batch, Loss, Size
from unmask.encoders.layers import NORM_EPSILON, Mlp, initialize
from unmask.encoders.positions import TableResampling, resized, sine_cosine
from unmask.encoders.vit import VisionTransformer
from unmask.errors import SettingsError
from unmask.masks import PatchMask
from unmask.patches import size_of
from unmask.spec import MOST_BLOCKS, sized
from unmask.targets import AnyTarget, NormalizedPixels

_MLP_RATIO = 4.0


@dataclass(frozen=True, kw_only=True)
class AIM:
    """Predict the next patch in raster order from all patches before it (section 3).

    The first patches of an image, the prefix, attend to each other in both directions and are not predicted; their
    number is drawn for each image. So the encoder can be used with full attention after pretraining. Departures, which
    keep encoders comparable between methods: the encoder has biases, and a class token, which belongs to the prefix.
    """

    target: AnyTarget = NormalizedPixels()
    """What is predicted of the next patch; codes are worse than normalised pixels (their table 2)."""

    head_dim: int = 2048
    """Width of the MLPs of the prediction head, applied to each token separately; discarded after pretraining."""

    head_depth: int = 12
    """Number of MLPs in the head; without them linear probes lose 6 points (their ablation)."""

    def __post_init__(self) -> None:
        sized(self, "head_dim", usual="AIM uses 2048")
        sized(self, "head_depth", most=MOST_BLOCKS, usual="AIM uses 12")

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
    """A pre-norm MLP with a residual connection."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(embed_dim, eps=NORM_EPSILON)
        self.mlp = Mlp(embed_dim, int(embed_dim * _MLP_RATIO))

    def forward(self, tokens: Float[Tensor, "b k e"]) -> Float[Tensor, "b k e"]:
        """Each token separately."""
        return tokens + self.mlp(self.norm(tokens))


class NextPatchHead(nn.Module):
    """From the token of a patch to a prediction of the next: adds positions again, then applies MLPs."""

    def __init__(self, spec: AIM, encoder: VisionTransformer, out_dim: int) -> None:
        super().__init__()
        self.grid = encoder.grid
        self.resampling: TableResampling = encoder.position_resampling
        table = sine_cosine(encoder.embed_dim, encoder.grid).float()[None]
        self.pos_embed = nn.Parameter(table, requires_grad=False)
        self.embed = nn.Linear(encoder.embed_dim, spec.head_dim)
        self.blocks = nn.ModuleList(MlpBlock(spec.head_dim) for _ in range(spec.head_depth))
        self.norm = nn.LayerNorm(spec.head_dim, eps=NORM_EPSILON)
        self.pred = nn.Linear(spec.head_dim, out_dim)
        initialize(self)

    def forward(self, patches: Float[Tensor, "b k d"], grid: Size) -> Float[Tensor, "b k p"]:
        """The prediction after each of the first k patches of an image."""
        positions = resized(self.pos_embed, self.grid, grid, self.resampling)[0, 1:]
        tokens = self.embed(patches + positions[: patches.shape[1]])
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

    def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
        """Draw the prefix of each image and score the predictions after it.

        The mean is over all scored patches of the step; images have different numbers of them.
        """
        grid = self.encoder.mask_grid(size_of(batch.images))
        patches = grid.height * grid.width
        prefix = draw_prefixes(batch.whole, patches, generator)
        # per image of the whole step, so that the losses of micro-batches can be averaged
        scored = (patches - prefix).float().mean()
        errors = self.errors(batch.images, batch.own(prefix))
        return Loss(errors.sum(1).mean() / scored, {})

    def errors(
        self, images: Shaped[Tensor, "b c h w"], prefix: Int[Tensor, " b"]
    ) -> Float[Tensor, "b k"]:
        """The target's error of each patch except the first, in raster order; 0 for patches of the prefix."""
        prediction = self.predict(images, prefix)
        truth = self.target(images, all_but_the_first(prediction), self.encoder.statistics)
        index = torch.arange(1, prediction.shape[1] + 1, device=images.device)
        return self.target.loss(prediction, truth) * (index >= prefix[:, None])

    def predict(
        self, images: Shaped[Tensor, "b c h w"], prefix: Int[Tensor, " b"]
    ) -> Float[Tensor, "b k p"]:
        """The prediction for each patch except the first, in raster order, in the units of the target."""
        grid = self.encoder.mask_grid(size_of(images))
        # the last patch predicts nothing, so it is not encoded
        tokens = self.encoder.class_tokens + grid.height * grid.width - 1
        attends = prefix_attention(prefix + self.encoder.class_tokens, tokens)
        return self.head(self.encoder.encode_attending(images, attends).patches, grid)


def draw_prefixes(images: int, patches: int, generator: torch.Generator) -> Int[Tensor, " images"]:
    """The number of patches in the prefix of each image: uniform from one to all but one; SettingsError for one patch."""
    if patches < 2:
        raise SettingsError(
            "an image of one patch has no next patch to predict; use a larger image (--image-size) or a smaller patch"
        )
    return torch.randint(1, patches, (images,), generator=generator, device=generator.device)


def prefix_attention(prefix: Int[Tensor, " b"], tokens: int) -> Bool[Tensor, "b t t"]:
    """Attention mask (query, key): a token attends to the prefix, the tokens before it, and itself."""
    index = torch.arange(tokens, device=prefix.device)
    return (index <= index[:, None]) | (index < prefix[:, None, None])


def all_but_the_first(prediction: Float[Tensor, "b k p"]) -> PatchMask:
    """The mask of images of k + 1 patches that removes all but the first patch, in raster order."""
    images, others = prediction.shape[:2]
    device = prediction.device
    order = torch.arange(others + 1, device=device).expand(images, -1)
    return PatchMask.in_order(torch.arange(images, device=device), order, kept=1)
