"""The linear and the attentive probe: heads trained on frozen tokens that are computed once."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.contracts import Batch, Loss
from unmask.data.order import samples
from unmask.randomness import seeded
from unmask.tasks.heads import AnyHead, AttentiveHead, TokenProbe
from unmask.training.hardware import memory_available
from unmask.training.loop import train
from unmask.training.optimizers import AdamW, AnyOptimizer, Lars
from unmask.training.schedules import WarmupCosine, fitting_batch, steps_of

_USABLE = 0.5  # share of a device's free memory that inputs may fill


@dataclass(frozen=True, kw_only=True)
class Probe:
    """How to train a head on frozen tokens."""

    head: AnyHead
    """The head."""

    optimizer: AnyOptimizer
    """The optimizer."""

    peak: float
    """Highest learning rate, for any batch size."""

    batch_size: int
    """Images per step, halved until an epoch has at least eight steps."""

    epochs: float
    """Number of epochs."""

    least_steps: int
    """Minimum number of steps, for small data."""

    def steps(self, images: int) -> tuple[int, int]:
        """Number of steps and batch size for a number of images."""
        batch_size = fitting_batch(self.batch_size, images)
        return max(self.least_steps, steps_of(self.epochs, images, batch_size)), batch_size

    def words(self, images: int) -> str:
        """The training on a number of images, in words."""
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
"""The paper's linear probe, but on features computed once, so without its crops and flips. On small data the batch is
smaller, but the learning rate stays: if it were scaled with the batch, LARS would hardly change the weights."""

ATTENTIVE = Probe(
    head=AttentiveHead(),
    optimizer=AdamW(beta2=0.999, weight_decay=0.05),
    peak=2e-3,
    batch_size=1024,
    epochs=30,
    least_steps=1000,
)
"""AIM's attentive probe, on patch tokens computed once. The schedule is ours."""


class _ProbeModule(nn.Module):
    """A head as a trainable for the loop; the batch has tokens in place of images."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head, self.norm = head, nn.Identity()

    def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
        """Mean cross-entropy, or binary cross-entropy for multi-label data; without randomness."""
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
    """Class scores for test tokens; all tokens have the class token first and are normalised already.

    The seed initialises the head and orders the images. The head is trained on `device`; scores are on the test tokens'
    device.
    """
    with seeded("head", seed):
        probe_module = _ProbeModule(probe.head.build(train_tokens.shape[-1], classes)).to(device)
    steps, batch_size = probe.steps(len(labels))
    train_in_memory(
        probe_module,
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
        probe_module.eval()
        parts = [probe_module.head(part.to(device), probe_module.norm) for part in test.split(1024)]
    return torch.cat(parts).to(test.device)


def train_in_memory(
    module: nn.Module,
    inputs: Shaped[Tensor, "n *shape"],
    labels: Int[Tensor, "n"] | Float[Tensor, "n classes"],
    optimizer: AnyOptimizer,
    *,
    peak: float,
    warmup_steps: float,
    steps: int,
    batch_size: int,
    seed: int,
) -> None:
    """Train a module on its device for a number of steps; the learning rate rises to `peak` and falls along a cosine.

    The seed determines the order of the inputs and the module's random numbers.
    """
    device = next(module.parameters()).device
    if device.type != "cpu" and inputs.nbytes < _USABLE * memory_available(device):
        inputs = inputs.to(device)
    schedule = WarmupCosine(base_lr=peak * 256 / batch_size, warmup_epochs=warmup_steps)
    reports = train(
        module.train(),
        _batches(inputs, labels, steps, batch_size, seed, device),
        optimizer.build(module),
        lambda step: schedule.rate(step, steps, batch_size),  # one epoch per step
        first_step=0,
        steps=steps,
        seed=seed,
        device=device,
        precision="float32",
        micro_batch=batch_size,
    )
    for _ in reports:
        pass


def _batches(
    inputs: Tensor, labels: Tensor, steps: int, batch_size: int, seed: int, device: torch.device
) -> Iterator[Batch]:
    for step in range(steps):
        chosen = torch.tensor([i for _, i in samples(step, batch_size, len(labels), seed)])
        rows = inputs[chosen.to(inputs.device)]
        yield Batch((rows,), labels[chosen], chosen, 0).to(device)
