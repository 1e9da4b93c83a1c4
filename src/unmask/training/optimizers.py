"""Optimizers: AdamW, AdamW with layer-wise learning rates, LARS, and Muon from `training/muon.py`; gradient clipping."""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from unmask.spec import Kind, within
from unmask.training.muon import Muon
from unmask.training.parameter_groups import Exempt, decay_groups, layer_groups

_HOW_TO_TURN_OFF = "use optimizer.clipping:none to turn clipping off"


@dataclass(frozen=True, kw_only=True)
class NoClipping:
    """Gradients are used as they are."""

    def __call__(self, parameters: list[Tensor]) -> None:
        """Do nothing."""


@dataclass(frozen=True, kw_only=True)
class ClipTogether:
    """Scale all gradients by one factor, so that their joint norm is at most `norm`."""

    norm: float = 3.0
    """Largest joint norm."""

    def __post_init__(self) -> None:
        within(self, "(0, inf)", "norm", usual=_HOW_TO_TURN_OFF)

    def __call__(self, parameters: list[Tensor]) -> None:
        """Scale the gradients in place."""
        nn.utils.clip_grad_norm_(parameters, self.norm)


@dataclass(frozen=True, kw_only=True)
class ClipEach:
    """Scale the gradient of each parameter separately, so that its norm is at most `norm` (DINO)."""

    norm: float = 3.0
    """Largest norm of one parameter's gradient."""

    def __post_init__(self) -> None:
        within(self, "(0, inf)", "norm", usual=_HOW_TO_TURN_OFF)

    def __call__(self, parameters: list[Tensor]) -> None:
        """Scale the gradients in place."""
        for parameter in parameters:
            nn.utils.clip_grad_norm_([parameter], self.norm)


AnyClipping = (
    Annotated[NoClipping, Kind("none")]
    | Annotated[ClipTogether, Kind("together")]
    | Annotated[ClipEach, Kind("each")]
)


def clip(optimizer: torch.optim.Optimizer) -> None:
    """Clip all gradients with the `clipping` of the first parameter group, if it has one."""
    clipping = optimizer.param_groups[0].get("clipping")
    if clipping is not None:
        clipping(
            [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        )


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    beta1: float = 0.9
    """Decay rate of the mean of gradients."""

    beta2: float = 0.95
    """Decay rate of the mean of squared gradients; MAE: 0.95 in pretraining (table 8), 0.999 in fine-tuning (table 9)."""

    weight_decay: float = 0.05
    """Weight decay of matrices and tokens; vectors and biases have none."""

    last_weight_decay: float | None = None
    """Weight decay at the last step, reached along half a cosine (DINO); null keeps it constant."""

    clipping: AnyClipping = NoClipping()
    """How large gradients are clipped."""

    def __post_init__(self) -> None:
        within(self, "[0, 1)", "beta1", "beta2")
        within(self, "[0, inf)", "weight_decay", "last_weight_decay")

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of all trainable parameters; `set_rates` sets its learning rate before every step."""
        with_decay, without_decay = decay_groups(module)
        first, last = self.weight_decay, self.last_weight_decay
        decays = {} if last is None else {"decays": (first, last)}
        clipping = {} if self.clipping == NoClipping() else {"clipping": self.clipping}
        groups = [
            {"params": without_decay, "weight_decay": 0.0, **clipping},
            {"params": with_decay, "weight_decay": first, **decays, **clipping},
        ]
        betas = (self.beta1, self.beta2)
        return torch.optim.AdamW(groups, lr=0.0, betas=betas, fused=True)


@dataclass(frozen=True, kw_only=True)
class LayerwiseAdamW:
    """AdamW for fine-tuning: layers closer to the pixels have lower learning rates.

    Layer-wise decay (Clark and others, 2020; BEiT; MAE table 9).
    """

    beta1: float = 0.9
    """Decay rate of the mean of gradients."""

    beta2: float = 0.999
    """Decay rate of the mean of squared gradients (MAE table 9)."""

    weight_decay: float = 0.05
    """Weight decay of matrices, and of what `exempt` does not name."""

    layer_decay: float = 0.75
    """Learning rate of a layer relative to the layer above it; 1 gives all layers the same rate."""

    exempt: Exempt = "vectors"
    """What has no weight decay: vectors, biases, the position table and class tokens (vectors); layer norms over tokens and
    the position table (norms), as in ViTDet for ViT-B and L; or nothing, as in ViTDet for ViT-H."""

    def __post_init__(self) -> None:
        within(self, "[0, 1)", "beta1", "beta2")
        within(self, "[0, inf)", "weight_decay")
        within(self, "(0, 1]", "layer_decay", usual="MAE uses 0.75")

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of all trainable parameters; `module.encoder` must have layers."""
        groups = layer_groups(module, self.layer_decay, self.weight_decay, self.exempt)
        return torch.optim.AdamW(groups, lr=0.0, betas=(self.beta1, self.beta2), fused=True)


@dataclass(frozen=True, kw_only=True)
class Lars:
    """SGD with momentum whose steps are proportional to each matrix's norm (You and others, 2017; MAE table 10).

    Vectors and biases take plain steps without weight decay.
    """

    momentum: float = 0.9
    """Momentum."""

    trust: float = 0.001
    """Trust coefficient: length of a step relative to the matrix's norm, at a learning rate of 1."""

    weight_decay: float = 0.0
    """Weight decay of matrices."""

    def __post_init__(self) -> None:
        within(self, "[0, 1)", "momentum")
        within(self, "[0, inf)", "trust", "weight_decay")

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of all trainable parameters."""
        with_decay, without_decay = decay_groups(module)
        groups = [
            {"params": without_decay, "trust": None, "weight_decay": 0.0},
            {"params": with_decay, "trust": self.trust, "weight_decay": self.weight_decay},
        ]
        groups = [group for group in groups if group["params"]]
        return LarsOptimizer(groups, {"lr": 0.0, "momentum": self.momentum})


class LarsOptimizer(torch.optim.Optimizer):
    """See `Lars`.

    timm's differs from the paper: without weight decay it does not adapt matrices, and with it it adds norms.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        update = gradient.add(parameter, alpha=group["weight_decay"])
        if group["trust"] is not None:
            norm, update_norm = parameter.norm(), update.norm()
            defined = (norm > 0) & (update_norm > 0)  # else the ratio is 0 or not a number
            update = update * torch.where(defined, group["trust"] * norm / update_norm, 1.0)
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        state["momentum_buffer"].mul_(group["momentum"]).add_(update)
        parameter.add_(state["momentum_buffer"], alpha=-group["lr"])


AnyOptimizer = (
    Annotated[AdamW, Kind("adamw")]
    | Annotated[LayerwiseAdamW, Kind("layerwise-adamw")]
    | Annotated[Lars, Kind("lars")]
    | Annotated[Muon, Kind("muon")]
)
