"""Parameter groups of optimizers, and the learning rate and weight decay that are set before every step.

torch keeps a group as an untyped dictionary. Besides `params`, `lr` and `weight_decay`, which torch defines, our groups
have these keys:

| key | value | written by | read by |
|---|---|---|---|
| scale | factor on the learning rate; 1 without the key | `layer_groups` | `set_rates` |
| decays | (first, last) weight decay; it is constant without the key | `AdamW` | `set_rates` |
| clipping | a member of `AnyClipping`, the same in all groups; no clipping without the key | `AdamW` | `clip` |
| trust | LARS's trust coefficient; None for plain SGD steps | `Lars` | `LarsOptimizer` |
| matrices | how many matrices a parameter holds, stacked by rows; 0 for an AdamW step | `Muon` | `MuonOptimizer` |

Checkpoints hold no groups: they are built again from the recipe, so keys can be renamed freely.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn

from unmask.errors import SettingsError
from unmask.traits import Layered

_WITHOUT_DECAY = ("pos_embed", "cls_token")
"""Exempt from layer-wise AdamW's weight decay, as in MAE's published fine-tuning code."""

Exempt = Literal["vectors", "norms", "nothing"]
"""What layer-wise AdamW exempts from weight decay: vectors, biases, the position table and class tokens (MAE); layer norms
and the position table (ViTDet for ViT-B and L); or nothing (ViTDet for ViT-H)."""


def decay_groups(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Trainable parameters with and without weight decay, in the module's order.

    As published: vectors and biases have none; class and mask tokens, which have three dimensions, have it.
    """
    with_decay: list[nn.Parameter] = []
    without_decay: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            is_vector = parameter.ndim <= 1 or name.rpartition(".")[2] == "bias"
            (without_decay if is_vector else with_decay).append(parameter)
    return with_decay, without_decay


def layer_groups(
    module: nn.Module, layer_decay: float, weight_decay: float, exempt: Exempt = "vectors"
) -> list[dict[str, Any]]:
    """Parameter groups for layer-wise learning rates: layer i of L has the scale layer_decay^(L - 1 - i).

    The layers are those of the module itself, if it has some, or of `module.encoder`. All other parameters, such as a head's,
    belong to the last layer.

    Raises:
        SettingsError: if neither has layers.
    """
    layers, layer_of = _layers(module)
    norms = _of_layer_norms(module) if exempt == "norms" else set[nn.Parameter]()
    groups: dict[tuple[int, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            last = name.rpartition(".")[2]
            is_exempt = {
                "vectors": parameter.ndim <= 1 or last == "bias" or last in _WITHOUT_DECAY,
                "norms": parameter in norms or last == "pos_embed",
                "nothing": False,
            }[exempt]
            group = layer_of(name), 0.0 if is_exempt else weight_decay
            groups.setdefault(group, []).append(parameter)
    return [
        {"params": parameters, "scale": layer_decay ** (layers - 1 - layer), "weight_decay": decay}
        for (layer, decay), parameters in groups.items()
    ]


def _layers(module: nn.Module) -> tuple[int, Callable[[str], int]]:
    """The number of layers, and the layer of a parameter by its name."""
    if isinstance(module, Layered):
        return module.layers, module.layer_of
    encoder = getattr(module, "encoder", None)
    if not isinstance(encoder, Layered):
        raise SettingsError(
            "layer-wise learning rates need an encoder with layers, and this model has none; "
            "use optimizer:adamw"
        )

    def layer_of(name: str) -> int:
        owner, _, name_in_owner = name.partition(".")
        return encoder.layer_of(name_in_owner) if owner == "encoder" else encoder.layers - 1

    return encoder.layers, layer_of


def _of_layer_norms(module: nn.Module) -> set[nn.Parameter]:
    """The parameters of torch's layer norms, which are those over tokens."""
    norms = (part for part in module.modules() if isinstance(part, nn.LayerNorm))
    return {parameter for norm in norms for parameter in norm.parameters()}


def set_rates(optimizer: torch.optim.Optimizer, learning_rate: float, done: float) -> None:
    """Set the learning rate of every group, and the weight decay where it changes along half a cosine.

    Args:
        optimizer: its groups are changed.
        learning_rate: of a group without a `scale`.
        done: share of all steps that are done, 0 to 1.
    """
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("scale", 1.0)
        if "decays" in group:
            first, last = group["decays"]
            group["weight_decay"] = last + (first - last) * 0.5 * (1 + math.cos(math.pi * done))
