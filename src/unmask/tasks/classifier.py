"""An encoder with a head on top, of which all or a part learns; tasks differ in head, loss and score."""

from collections.abc import Callable
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from unmask.annotations import Annotations
from unmask.contracts import Batch, Loss, Moment
from unmask.encoders.layers import Block, kept_paths
from unmask.encoders.vit import VisionTransformer
from unmask.errors import SettingsError
from unmask.patches import size_of
from unmask.tasks.average import WeightAverage
from unmask.tasks.heads import AnyHead
from unmask.traits import Following

LossFunction = Callable[[Float[Tensor, "b classes"], Annotations], Float[Tensor, ""]]
"""The mean loss of a batch, from the scores of classes and what is known of the images."""


@runtime_checkable
class Trained(Protocol):
    """The fields of a task that say which part of an encoder learns, and how it is regularised."""

    @property
    def head(self) -> AnyHead:
        """What makes scores of tokens."""
        ...

    @property
    def trained_blocks(self) -> str:
        """How much of the encoder learns."""
        ...

    @property
    def drop_path(self) -> float:
        """How often halves of blocks are skipped."""
        ...

    @property
    def weight_average(self) -> float:
        """Share of the old average of the weights that stays."""
        ...


def check_trained(task: Trained) -> None:
    """Refuse a part of an encoder, or a rate, that makes no sense.

    Raises:
        SettingsError: naming the field and its value.
    """
    for name in ("drop_path", "weight_average"):
        if not 0 <= getattr(task, name) < 1:
            raise SettingsError(f"{name} must lie in [0, 1), got {getattr(task, name)}")
    if task.trained_blocks not in ("all", "half") and not task.trained_blocks.isdecimal():
        raise SettingsError(
            f"trained_blocks is all, half or a number of blocks, got {task.trained_blocks!r}"
        )


def frozen_halves(trained_blocks: str, depth: int) -> int:
    """How many half blocks, attention or MLP, do not learn, counted from the first.

    Raises:
        SettingsError: if more blocks are to learn than there are.
    """
    if trained_blocks == "all":
        return 0
    learning = 1 if trained_blocks == "half" else 2 * int(trained_blocks)
    if learning > 2 * depth:
        raise SettingsError(
            f"{trained_blocks} blocks cannot be trained of an encoder that has {depth}; "
            f"--trained-blocks is all, half, or 0 to {depth}"
        )
    return 2 * depth - learning


class Classifier(nn.Module):
    """Scores of classes for whole images.

    What does not learn has no gradients and runs without remembering anything for a backward pass. In
    full fine-tuning the position table learns too.
    """

    def __init__(
        self, task: Trained, encoder: VisionTransformer, classes: int, loss: LossFunction
    ) -> None:
        super().__init__()
        self.task, self.loss = task, loss
        self.encoder = encoder
        self.head = task.head.build(encoder.embed_dim, classes)
        self._frozen = frozen_halves(task.trained_blocks, len(encoder.blocks))
        self._freeze()
        averaged = task.weight_average > 0
        self.average = (
            WeightAverage(task.weight_average, encoder=encoder, head=self.head)
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

    def predict(self, images: Shaped[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        """Scores of the classes, for evaluation: nothing is drawn."""
        encoder, head = (self.encoder, self.head) if self.training else self.evaluated
        return head(self._tokens(encoder, images, None, None), encoder.norm)

    def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
        """The mean loss; which blocks are skipped is drawn from the generator."""
        kept = self._kept(batch.whole, generator)
        if kept is not None:
            kept = batch.own(kept, dim=1)
        tokens = self._tokens(self.encoder, batch.images, batch.shown, kept)
        logits = self.head(tokens, self.encoder.norm)
        return Loss(self.loss(logits, batch.annotations), {})

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
        with torch.set_grad_enabled(learning and self.task.trained_blocks == "all"):
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
        if not self.training or self.task.drop_path == 0:
            return None
        depth = len(self.encoder.blocks)
        device = generator.device
        rates = torch.linspace(0, self.task.drop_path, depth, device=device).repeat_interleave(2)
        rates[: self._frozen] = 0
        return kept_paths(rates, images, generator)

    def _freeze(self) -> None:
        encoder = self.encoder
        everything = self.task.trained_blocks == "all"
        encoder.requires_grad_(everything)
        for number, block in enumerate(encoder.blocks):
            block = cast(Block, block)
            halves = ((block.norm1, block.attn, block.ls1), (block.norm2, block.mlp, block.ls2))
            for half, parts in enumerate(halves):
                for part in parts:
                    part.requires_grad_(2 * number + half >= self._frozen)
        some = self._frozen < 2 * len(encoder.blocks)
        encoder.norm.requires_grad_(some and self.head.uses_norm)
