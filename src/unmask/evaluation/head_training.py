"""Training on tensors in memory, without a run folder, for probes and other short trainings."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from unmask.contracts import Batch
from unmask.data.order import samples
from unmask.training.hardware import memory_available
from unmask.training.loop import train
from unmask.training.optimizers import AnyOptimizer
from unmask.training.schedules import WarmupCosine

_USABLE = 0.5  # share of a device's free memory that inputs may fill


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
