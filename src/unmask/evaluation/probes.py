"""Heads trained on frozen tokens that were computed once: the linear and the attentive probe."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.contracts import Batch, Loss
from unmask.evaluation.head_training import train_in_memory
from unmask.randomness import seeded
from unmask.tasks.heads import AnyHead, AttentiveHead, TokenProbe
from unmask.training.optimizers import AdamW, AnyOptimizer, Lars
from unmask.training.schedules import fitting_batch, steps_of


@dataclass(frozen=True, kw_only=True)
class Probe:
    """How to train a head on frozen tokens."""

    head: AnyHead
    """What is trained."""

    optimizer: AnyOptimizer
    """How it follows gradients."""

    peak: float
    """Highest learning rate, whatever the batch."""

    batch_size: int
    """Images of a step, halved until an epoch of the images has eight steps."""

    epochs: float
    """How often each image is shown."""

    least_steps: int
    """Steps on small data, where the epochs make fewer."""

    def steps(self, images: int) -> tuple[int, int]:
        """Steps and batch size on so many images."""
        batch_size = fitting_batch(self.batch_size, images)
        return max(self.least_steps, steps_of(self.epochs, images, batch_size)), batch_size

    def words(self, images: int) -> str:
        """What is done on so many images."""
        steps, batch_size = self.steps(images)
        return f"{steps:,} steps of {batch_size:,}, rate {self.peak:g}, features not augmented"


LINEAR = Probe(
    head=TokenProbe(),  # appendix A.1
    optimizer=Lars(momentum=0.9, trust=0.001, weight_decay=0.0),  # table 10
    peak=6.4,  # table 10: 0.1 x 16384 / 256
    batch_size=16384,  # table 10
    epochs=90,  # table 10
    least_steps=1000,
)
"""The paper's linear probe on features computed once; so without its crops and flips, a departure. On small
data the rate stays and the batch shrinks: scaled with the batch, LARS would hardly move the weights."""

ATTENTIVE = Probe(
    head=AttentiveHead(),
    optimizer=AdamW(beta2=0.999, weight_decay=0.05),
    peak=2e-3,
    batch_size=1024,
    epochs=30,
    least_steps=1000,
)
"""AIM's kind of probe, on patch tokens computed once. The schedule is ours."""


class _Probed(nn.Module):
    """A head as the loop wants it: tokens stand where images do."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head, self.norm = head, nn.Identity()

    def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
        """Mean cross-entropy, of one class or of each; nothing is drawn."""
        scores, truth = self.head(batch.images, self.norm), batch.annotations
        assert isinstance(truth, Tensor)
        if truth.ndim == 2:
            return Loss(F.binary_cross_entropy_with_logits(scores, truth.to(scores.dtype)), {})
        return Loss(F.cross_entropy(scores, truth), {})


def probe_scores(
    probe: Probe,
    train_tokens: Float[Tensor, "n t d"],
    labels: Int[Tensor, "n"] | Float[Tensor, "n classes"],
    test: Float[Tensor, "b t d"],
    classes: int,
    seed: int,
    device: torch.device,
) -> Float[Tensor, "b classes"]:
    """Scores of classes for test tokens, class token first, already normed; the seed draws head and order.

    The head is trained on `device`; tokens and scores stay where they are.
    """
    with seeded("head", seed):
        probed = _Probed(probe.head.build(train_tokens.shape[-1], classes)).to(device)
    steps, batch_size = probe.steps(len(labels))
    train_in_memory(
        probed,
        train_tokens,
        labels,
        probe.optimizer,
        peak=probe.peak,
        warmup_steps=steps / 9,
        steps=steps,
        batch_size=batch_size,
        seed=seed,
    )
    with torch.inference_mode():
        probed.eval()
        parts = [probed.head(part.to(device), probed.norm) for part in test.split(1024)]
    return torch.cat(parts).to(test.device)
