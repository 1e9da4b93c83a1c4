"""The checkpoints of a run, written in a thread if memory has room for a copy."""

import json

import torch
from torch import nn

from unmask.errors import DivergedError
from unmask.runs.folder import RunFolder
from unmask.runs.run import Run
from unmask.spec import to_json
from unmask.training.checkpoint import (
    LOSS_SCALE,
    Saving,
    files_of,
    optimizer_tensors,
    part_name,
    snapshot,
)
from unmask.training.distributed import agreed, here, own_part, own_parts, whole
from unmask.training.hardware import memory_available
from unmask.training.loss_scale import LossScale


class Saver:
    """Saves one checkpoint at a time. Except for `save_first`, all processes must make the same calls."""

    def __init__(
        self,
        run: Run,
        folder: RunFolder,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss_scale: LossScale | None = None,
    ) -> None:
        self.run, self.folder, self.module, self.optimizer = run, folder, module, optimizer
        self.loss_scale = loss_scale
        self._saving: Saving | None = None

    @property
    def busy(self) -> bool:
        """Whether this process is still writing."""
        return self._saving is not None and not self._saving.done

    def settle(self) -> None:
        """Wait until the current checkpoint is written.

        Raises:
            ResourceError: if writing failed.
        """
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.finish()

    def save(self, step: int, *, last: bool) -> None:
        """Start writing a checkpoint; wait for it if it is the last one or memory has no room for a copy.

        Raises:
            DivergedError: if weights are not finite; they are not saved.
            ResourceError: if writing this checkpoint or the previous one failed.
        """
        self._check_weights(step)
        self.settle()
        (at_once,) = agreed(last or not self._room_for_a_copy())
        self._saving = self._begin(step, copy=not at_once, shard=self.run.hardware.shard)
        if at_once:
            self.settle()

    def save_first(self) -> None:
        """Write the state before the first step and wait for it. One process does this: nothing is sharded yet."""
        self._saving = self._begin(0, copy=False, shard=False)
        self.settle()

    def leave(self) -> None:
        """Wait for the writing thread, whatever ended the training."""
        if self._saving is not None:
            self._saving.thread.join()

    def _begin(self, step: int, *, copy: bool, shard: bool) -> Saving | None:
        """Start writing the present state; with a copy of it, training may continue meanwhile.

        Without shards only the first process writes. The encoder file holds the average, if weights are averaged.
        """
        run, processes = self.run, here()
        if not (shard or processes.first):
            return None
        copied = snapshot if copy else dict
        state, spec = whole(self.module.state_dict()), run.job.model(run)
        parts: dict[str, dict[str, torch.Tensor]] = {}
        if processes.first:
            state = copied(state)
            parts = {"model": state} if spec is None else files_of(state, self.module)
            if self.loss_scale:
                parts[LOSS_SCALE] = self.loss_scale.tensors()
        name = "training/optimizer"
        if shard:
            name = part_name(name, processes.rank, processes.count)
        parts[name] = copied(own_parts(self._state()))
        metadata = {} if spec is None else {"unmask": json.dumps(to_json(spec))}
        return Saving(
            self.folder.checkpoints,
            parts,
            step=step,
            images_seen=run.images_seen(step),
            spec_hash=run.hash,
            metadata={**metadata, "run": json.dumps(to_json(run))},
            shared=shard,
        )

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
                f"after step {step}, {len(bad)} weights are not finite, such as {bad[0]}, so no checkpoint was "
                "saved; the learning rate is too high: try half of --schedule.base-lr"
            )
