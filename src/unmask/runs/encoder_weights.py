"""Divide the tensors of a trained module: the encoder, the model, and what only training needs."""

from torch import Tensor, nn

from unmask.traits import Accompanied

COMPANIONS = "training/companions"
"""The file of a checkpoint with tensors that only training needs, such as a teacher."""


def encoder_of(model: dict[str, Tensor], *special: str) -> dict[str, Tensor]:
    """The encoder's tensors among those of a model; `special` is the prefix of their names, if unusual."""
    prefixes = (
        *special,
        "average.copies.encoder.",
        "encoder.",
    )  # if weights are averaged, the average is evaluated
    prefix = next(p for p in prefixes if any(name.startswith(p) for name in model))
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in model.items()
        if name.startswith(prefix)
    }


def files_of(state: dict[str, Tensor], trained: nn.Module) -> dict[str, dict[str, Tensor]]:
    """The weight files of a checkpoint: encoder, model, and tensors that only training needs, if any."""
    if not isinstance(trained, Accompanied):
        return {"encoder": encoder_of(state), "model": state}
    companions = {n: t for n, t in state.items() if n.startswith(trained.companions)}
    model = {name: tensor for name, tensor in state.items() if name not in companions}
    return {"encoder": encoder_of(state, trained.gives), "model": model, COMPANIONS: companions}
