"""Which tensors of a trained module are whose: the encoder to take away, the model, and what serves training alone."""

from torch import Tensor, nn

from unmask.traits import Accompanied

COMPANIONS = "training/companions"
"""The file of a checkpoint for what serves training alone, such as a teacher."""


def encoder_of(model: dict[str, Tensor], *given: str) -> dict[str, Tensor]:
    """The encoder's tensors among those of a model; `given` is the prefix of their names, if unusual."""
    prefixes = (*given, "average.copies.encoder.", "encoder.")  # an average is what is evaluated
    prefix = next(p for p in prefixes if any(name.startswith(p) for name in model))
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in model.items()
        if name.startswith(prefix)
    }


def files_of(state: dict[str, Tensor], trained: nn.Module) -> dict[str, dict[str, Tensor]]:
    """The files of a checkpoint: encoder, model, and what accompanies its training, if anything."""
    if not isinstance(trained, Accompanied):
        return {"encoder": encoder_of(state), "model": state}
    companions = {n: t for n, t in state.items() if n.startswith(trained.companions)}
    model = {name: tensor for name, tensor in state.items() if name not in companions}
    return {"encoder": encoder_of(state, trained.gives), "model": model, COMPANIONS: companions}
