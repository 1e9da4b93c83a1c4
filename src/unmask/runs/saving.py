"""Checkpoints of a run in training: written beside it where memory allows, else waited for."""

import torch
from torch import nn

from unmask.errors import DivergedError
from unmask.runs.folder import RunFolder
from unmask.runs.run import Run
from unmask.training.checkpoint import Saving, optimizer_tensors
from unmask.training.distributed import agreed, own_part
from unmask.training.hardware import memory_available


class Saver:
    """Saves one checkpoint at a time; all processes call all of it at the same steps."""

    def __init__(
        self, run: Run, folder: RunFolder, module: nn.Module, optimizer: torch.optim.Optimizer
    ) -> None:
        self.run, self.folder, self.module, self.optimizer = run, folder, module, optimizer
        self._saving: Saving | None = None

    @property
    def busy(self) -> bool:
        """Whether this process is still writing."""
        return self._saving is not None and not self._saving.done

    def settle(self) -> None:
        """Wait for what is being written.

        Raises:
            ResourceError: if it could not be written.
        """
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.finish()

    def save(self, step: int, *, last: bool) -> None:
        """Begin a checkpoint, or (the last one, or where memory has no room for a copy) write it at once.

        Raises:
            DivergedError: if weights are not finite; they are not saved.
            ResourceError: if this or the one before could not be written.
        """
        self._check_weights(step)
        self.settle()
        (at_once,) = agreed(last or not self._room_for_a_copy())
        parts = (self.run, step, self.module, self.optimizer)
        self._saving = self.folder.begin_save(*parts, copy=not at_once)
        if at_once:
            self.settle()

    def leave(self) -> None:
        """Let a thread that still writes come to its end, whatever ended the training."""
        if self._saving is not None:
            self._saving.thread.join()

    def _room_for_a_copy(self) -> bool:
        tensors = (*self.module.state_dict().values(), *self._state().values())
        return 2 * sum(own_part(t).nbytes for t in tensors) < memory_available(torch.device("cpu"))

    def _state(self) -> dict[str, torch.Tensor]:
        return optimizer_tensors(self.optimizer, self.module)

    def _check_weights(self, step: int) -> None:
        parameters = self.module.named_parameters()
        bad = [name for name, p in parameters if not bool(own_part(p).isfinite().all())]
        if bad:
            raise DivergedError(
                f"step {step} left weights that are not finite ({bad[0]} among {len(bad)}), so they were "
                "not saved; the learning rate is too high (try half of --schedule.base-lr)"
            )
