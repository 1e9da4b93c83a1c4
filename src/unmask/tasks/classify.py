"""Classification: from scratch, full and partial fine-tuning, and probes are one task.

They differ in how much of the encoder learns (`trained_blocks`) and in the head.
"""

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.contracts import Batch, Loss, Moment
from unmask.encoders.layers import Block, kept_paths
from unmask.encoders.vit import VisionTransformer
from unmask.errors import SettingsError
from unmask.patches import size_of
from unmask.tasks.average import WeightAverage
from unmask.tasks.heads import AnyHead, MeanHead
from unmask.traits import Following


@dataclass(frozen=True, kw_only=True)
class Classify:
    """Cross-entropy on class labels, or on the shares of classes in mixed images."""

    head: AnyHead = MeanHead()
    """What makes scores of tokens."""

    trained_blocks: str = "all"
    """all (embeddings too), the number of last blocks that learn, half (the last one's MLP), or 0."""

    label_smoothing: float = 0.0
    """Share of the target spread over all classes."""

    drop_path: float = 0.0
    """How often the halves of the last block are skipped in training; rises in a line from 0 in the first."""

    weight_average: float = 0.0
    """Share of the old average of the weights that stays at each step; 0 evaluates the weights themselves."""

    def __post_init__(self) -> None:
        for name in ("label_smoothing", "drop_path", "weight_average"):
            if not 0 <= getattr(self, name) < 1:
                raise SettingsError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        if self.trained_blocks not in ("all", "half") and not self.trained_blocks.isdecimal():
            raise SettingsError(
                f"trained_blocks is all, half or a number of blocks, got {self.trained_blocks!r}"
            )

    def build(self, encoder: VisionTransformer, classes: int) -> "Classifier":
        """The module around an encoder, of which the trained part is trained with it."""
        return Classifier(self, encoder, classes)

    def frozen_halves(self, depth: int) -> int:
        """How many half blocks, attention or MLP, do not learn, counted from the first.

        Raises:
            SettingsError: if more blocks are to learn than there are.
        """
        if self.trained_blocks == "all":
            return 0
        learning = 1 if self.trained_blocks == "half" else 2 * int(self.trained_blocks)
        if learning > 2 * depth:
            raise SettingsError(
                f"{self.trained_blocks} blocks cannot be trained of an encoder that has {depth}; "
                f"--trained-blocks is all, half, or 0 to {depth}"
            )
        return 2 * depth - learning


class Classifier(nn.Module):
    """See `Classify`.

    What does not learn has no gradients and runs without remembering anything for a backward pass. In
    full fine-tuning the position table learns too.
    """

    def __init__(self, spec: Classify, encoder: VisionTransformer, classes: int) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = encoder
        self.head = spec.head.build(encoder.embed_dim, classes)
        self._frozen = spec.frozen_halves(len(encoder.blocks))
        self._freeze()
        averaged = spec.weight_average > 0
        self.average = (
            WeightAverage(spec.weight_average, encoder=encoder, head=self.head)
            if averaged
            else None
        )

    @property
    def evaluated(self) -> tuple[VisionTransformer, nn.Module]:
        """Encoder and head whose weights count: their average, if there is one."""
        if self.average is None:
            return self.encoder, self.head
        copies = self.average.copies
        return cast(VisionTransformer, copies["encoder"]), copies["head"]

    def logits(self, images: Shaped[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        """Scores of the classes, for evaluation: nothing is drawn."""
        encoder, head = (self.encoder, self.head) if self.training else self.evaluated
        return head(self._tokens(encoder, images, None, None), encoder.norm)

    def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
        """Mean cross-entropy; what is dropped is drawn from the generator."""
        kept = self._kept(batch.whole, generator)
        if kept is not None:
            kept = batch.own(kept, dim=1)
        tokens = self._tokens(self.encoder, batch.images, batch.shown, kept)
        logits = self.head(tokens, self.encoder.norm)
        smoothing = self.spec.label_smoothing
        return Loss(F.cross_entropy(logits, batch.labels, label_smoothing=smoothing), {})

    def after_step(self, moment: Moment) -> None:
        """Let the head's running statistics be those of all processes, and the average follow."""
        if isinstance(self.head, Following):
            self.head.after_step(moment)
        if self.average is not None:
            self.average.follow(encoder=self.encoder, head=self.head)

    def _tokens(
        self,
        encoder: VisionTransformer,
        images: Shaped[Tensor, "b c h w"],
        shown: Int[Tensor, "b k"] | None,
        kept: Float[Tensor, "halves b 1 1"] | None,
    ) -> Float[Tensor, "b t d"]:
        """The tokens after the last block, before the norm; several class tokens become one, their mean."""
        learning = torch.is_grad_enabled()
        with torch.set_grad_enabled(learning and self.spec.trained_blocks == "all"):
            if shown is None:
                tokens = encoder.embed(images)
            else:
                every = torch.arange(len(images), device=images.device)
                tokens = encoder.embed_visible(images, every, shown)
            bias = encoder.relations(size_of(images), shown)
        for number in range(2 * len(encoder.blocks)):
            block = cast(Block, encoder.blocks[number // 2])
            with torch.set_grad_enabled(learning and number >= self._frozen):
                added = block.transform(tokens) if number % 2 else block.attend(tokens, bias)
                tokens = tokens + (added if kept is None else added * kept[number])
        classes = encoder.class_tokens
        if classes == 1:
            return tokens
        return torch.cat([tokens[:, :classes].mean(1, keepdim=True), tokens[:, classes:]], dim=1)

    def _kept(
        self, images: int, generator: torch.Generator
    ) -> Float[Tensor, "halves b 1 1"] | None:
        """See `kept_paths`; only blocks that learn are skipped."""
        if not self.training or self.spec.drop_path == 0:
            return None
        depth = len(self.encoder.blocks)
        device = generator.device
        rates = torch.linspace(0, self.spec.drop_path, depth, device=device).repeat_interleave(2)
        rates[: self._frozen] = 0
        return kept_paths(rates, images, generator)

    def _freeze(self) -> None:
        encoder = self.encoder
        everything = self.spec.trained_blocks == "all"
        encoder.requires_grad_(everything)
        for number, block in enumerate(encoder.blocks):
            block = cast(Block, block)
            halves = ((block.norm1, block.attn, block.ls1), (block.norm2, block.mlp, block.ls2))
            for half, parts in enumerate(halves):
                for part in parts:
                    part.requires_grad_(2 * number + half >= self._frozen)
        some = self._frozen < 2 * len(encoder.blocks)
        encoder.norm.requires_grad_(some and self.head.uses_norm)
