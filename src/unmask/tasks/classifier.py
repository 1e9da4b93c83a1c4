"""An encoder with a head, trained in whole or in part; tasks differ in head, loss and score."""

from collections.abc import Callable
from typing import Protocol, cast, runtime_checkable

import torch
import torch.distributed as dist
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from unmask.annotations import Annotations
from unmask.contracts import Batch, Loss, Moment
from unmask.encoders.averages import follow, slow_copy
from unmask.encoders.layers import Block, kept_paths
from unmask.encoders.vit import VisionTransformer
from unmask.errors import SettingsError
from unmask.patches import size_of
from unmask.spec import within
from unmask.tasks.heads import AnyHead

LossFunction = Callable[[Float[Tensor, "b classes"], Annotations], Float[Tensor, ""]]
"""The mean loss of a batch, from class scores and annotations."""


@runtime_checkable
class Trained(Protocol):
    """The fields of a task for the trained part of the encoder and its regularisation."""

    @property
    def head(self) -> AnyHead:
        """The head, from tokens to class scores."""
        ...

    @property
    def trained_blocks(self) -> str:
        """Which blocks of the encoder are trained."""
        ...

    @property
    def drop_path(self) -> float:
        """Probability of skipping a half block."""
        ...

    @property
    def weight_average(self) -> float:
        """Decay of the moving average of the weights."""
        ...


def check_trained(task: Trained) -> None:
    """Raises SettingsError for a field with a wrong value."""
    within(task, "[0, 1)", "drop_path", "weight_average")
    if task.trained_blocks not in ("all", "half") and not task.trained_blocks.isdecimal():
        raise SettingsError(
            f"--trained-blocks must be all, half or a number of blocks, got {task.trained_blocks!r}"
        )


def frozen_halves(trained_blocks: str, depth: int) -> int:
    """Number of frozen half blocks (attention or MLP) from the first on; SettingsError for more blocks than there are."""
    if trained_blocks == "all":
        return 0
    trained = 1 if trained_blocks == "half" else 2 * int(trained_blocks)
    if trained > 2 * depth:
        raise SettingsError(
            f"cannot train {trained_blocks} blocks of an encoder with {depth}; "
            f"--trained-blocks must be all, half, or 0 to {depth}"
        )
    return 2 * depth - trained


class Classifier(nn.Module):
    """Class scores for whole images.

    Frozen parts run without gradients and keep no activations for the backward pass. Full fine-tuning also trains the
    position embeddings.
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
        self.average: nn.ModuleDict | None = None
        if task.weight_average > 0:  # "copies" is part of names in saved files
            copies = {"encoder": slow_copy(encoder), "head": slow_copy(self.head)}
            self.average = nn.ModuleDict({"copies": nn.ModuleDict(copies)})

    @property
    def evaluated(self) -> tuple[VisionTransformer, nn.Module]:
        """Encoder and head for evaluation: their moving averages, if there are any."""
        if self.average is None:
            return self.encoder, self.head
        copies = cast(nn.ModuleDict, self.average["copies"])
        return cast(VisionTransformer, copies["encoder"]), copies["head"]

    def predict(self, images: Shaped[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        """Class scores, without randomness."""
        encoder, head = (self.encoder, self.head) if self.training else self.evaluated
        return head(self._tokens(encoder, images, None, None), encoder.norm)

    def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
        """The mean loss; the generator draws the skipped half blocks."""
        kept = self._kept(batch.whole, generator)
        if kept is not None:
            kept = batch.own(kept, dim=1)
        tokens = self._tokens(self.encoder, batch.images, batch.shown, kept)
        logits = self.head(tokens, self.encoder.norm)
        return Loss(self.loss(logits, batch.annotations), {})

    def after_step(self, moment: Moment) -> None:
        """Average the head's running statistics over processes, and update the moving average of the weights."""
        for module in self.head.modules():
            if isinstance(module, nn.BatchNorm1d):
                _average_over_processes(module)
        if self.average is not None:
            for average, module in zip(self.evaluated, (self.encoder, self.head), strict=True):
                follow(average, module, self.task.weight_average)

    def _tokens(
        self,
        encoder: VisionTransformer,
        images: Shaped[Tensor, "b c h w"],
        shown: Int[Tensor, "b k"] | None,
        kept: Float[Tensor, "halves b 1 1"] | None,
    ) -> Float[Tensor, "b t d"]:
        """The tokens after the last block, before the norm; several class tokens are averaged."""
        gradients = torch.is_grad_enabled()
        with torch.set_grad_enabled(gradients and self.task.trained_blocks == "all"):
            if shown is None:
                tokens = encoder.embed(images)
            else:
                image = torch.arange(len(images), device=images.device)
                tokens = encoder.embed_visible(images, image, shown)
            bias = encoder.relations(size_of(images), shown)
        for number in range(2 * len(encoder.blocks)):
            block = cast(Block, encoder.blocks[number // 2])
            with torch.set_grad_enabled(gradients and number >= self._frozen):
                update = block.transform(tokens) if number % 2 else block.attend(tokens, bias)
                tokens = tokens + (update if kept is None else update * kept[number])
        classes = encoder.class_tokens
        if classes == 1:
            return tokens
        return torch.cat([tokens[:, :classes].mean(1, keepdim=True), tokens[:, classes:]], dim=1)

    def _kept(
        self, images: int, generator: torch.Generator
    ) -> Float[Tensor, "halves b 1 1"] | None:
        """See `kept_paths`; only trained half blocks are skipped."""
        if not self.training or self.task.drop_path == 0:
            return None
        depth = len(self.encoder.blocks)
        device = generator.device
        rates = torch.linspace(0, self.task.drop_path, depth, device=device).repeat_interleave(2)
        rates[: self._frozen] = 0
        return kept_paths(rates, images, generator)

    def _freeze(self) -> None:
        encoder = self.encoder
        encoder.requires_grad_(self.task.trained_blocks == "all")
        for number, block in enumerate(encoder.blocks):
            block = cast(Block, block)
            halves = ((block.norm1, block.attn, block.ls1), (block.norm2, block.mlp, block.ls2))
            for half, parts in enumerate(halves):
                for part in parts:
                    part.requires_grad_(2 * number + half >= self._frozen)
        any_trained = self._frozen < 2 * len(encoder.blocks)
        encoder.norm.requires_grad_(any_trained and self.head.uses_norm)


def _average_over_processes(batch_norm: nn.BatchNorm1d) -> None:
    """Replace running statistics with their mean over all processes."""
    if not (dist.is_available() and dist.is_initialized()):
        return
    for statistic in (batch_norm.running_mean, batch_norm.running_var):
        assert statistic is not None
        dist.all_reduce(statistic)
        statistic /= dist.get_world_size()
