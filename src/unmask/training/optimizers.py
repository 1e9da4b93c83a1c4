"""Optimizers, their parameter groups, and what is set anew before every step."""

import math
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.adamw import adamw

from unmask.errors import SettingsError
from unmask.spec import Kind
from unmask.traits import Layered


@dataclass(frozen=True, kw_only=True)
class NoClipping:
    """Gradients are taken as they are."""

    def __call__(self, parameters: list[Tensor]) -> None:
        """Do nothing."""


@dataclass(frozen=True, kw_only=True)
class ClipTogether:
    """All gradients are scaled down alike, to a norm of all of them together."""

    norm: float = 3.0
    """The largest norm."""

    def __post_init__(self) -> None:
        _check_norm(self.norm)

    def __call__(self, parameters: list[Tensor]) -> None:
        """Scale the gradients in place."""
        nn.utils.clip_grad_norm_(parameters, self.norm)


@dataclass(frozen=True, kw_only=True)
class ClipEach:
    """The gradient of each parameter is scaled down to a norm of its own (DINO)."""

    norm: float = 3.0
    """The largest norm."""

    def __post_init__(self) -> None:
        _check_norm(self.norm)

    def __call__(self, parameters: list[Tensor]) -> None:
        """Scale the gradients in place."""
        for parameter in parameters:
            nn.utils.clip_grad_norm_([parameter], self.norm)


def _check_norm(norm: float) -> None:
    if not norm > 0:
        raise SettingsError(
            f"gradients are clipped to a norm above 0, got {norm}; optimizer.clipping:none leaves them alone"
        )


AnyClipping = (
    Annotated[NoClipping, Kind("none")]
    | Annotated[ClipTogether, Kind("together")]
    | Annotated[ClipEach, Kind("each")]
)


def set_rates(optimizer: torch.optim.Optimizer, learning_rate: float, done: float) -> None:
    """Set the learning rate, and the weight decay where it changes, at a share of all steps done.

    A group that bears a "scale" has that much of the rate; one with "decays" goes from the first to the last of
    them along half a cosine.
    """
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("scale", 1.0)
        if "decays" in group:
            first, last = group["decays"]
            group["weight_decay"] = last + (first - last) * 0.5 * (1 + math.cos(math.pi * done))


def clip(optimizer: torch.optim.Optimizer) -> None:
    """Clip gradients as the optimizer's spec says, if it says so."""
    clipping = optimizer.param_groups[0].get("clipping")
    if clipping is not None:
        clipping(
            [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        )


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    beta1: float = 0.9
    """Memory of the gradient."""

    beta2: float = 0.95
    """Memory of its square; 0.95 in MAE's pretraining (table 8), 0.999 in its fine-tuning (table 9)."""

    weight_decay: float = 0.05
    """Decay of matrices and tokens; vectors and biases have none."""

    last_weight_decay: float | None = None
    """Decay at the end, where it changes, along half a cosine (DINO); null if it stays."""

    clipping: AnyClipping = NoClipping()
    """What is done to large gradients."""

    def __post_init__(self) -> None:
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise SettingsError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        for name in ("weight_decay", "last_weight_decay"):
            if (getattr(self, name) or 0) < 0:
                raise SettingsError(f"{name} must not be negative, got {getattr(self, name)}")

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of all parameters that learn; its rate is set before every step."""
        decayed, exempt = decay_groups(module)
        first, last = self.weight_decay, self.last_weight_decay
        changing = {} if last is None else {"decays": (first, last)}
        clipping = {} if self.clipping == NoClipping() else {"clipping": self.clipping}
        groups = [
            {"params": exempt, "weight_decay": 0.0, **clipping},
            {"params": decayed, "weight_decay": first, **changing, **clipping},
        ]
        betas = (self.beta1, self.beta2)
        return torch.optim.AdamW(groups, lr=0.0, betas=betas, fused=True)


@dataclass(frozen=True, kw_only=True)
class LayerwiseAdamW:
    """AdamW for fine-tuning: the nearer a layer is to the pixels, the lower its learning rate.

    Layer-wise decay (Clark and others, 2020; BEiT; MAE table 9). Position table and class token have no
    weight decay, as published, nor have vectors and biases.
    """

    beta1: float = 0.9
    """Memory of the gradient."""

    beta2: float = 0.999
    """Memory of its square (MAE table 9)."""

    weight_decay: float = 0.05
    """Decay of matrices."""

    layer_decay: float = 0.75
    """Learning rate of a layer relative to the next one's; 1 treats all alike."""

    def __post_init__(self) -> None:
        AdamW(beta1=self.beta1, beta2=self.beta2, weight_decay=self.weight_decay)
        if not 0 < self.layer_decay <= 1:
            raise SettingsError(
                f"layer_decay must lie above 0 and at most at 1, got {self.layer_decay}"
            )

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of all parameters that learn; the module must know its layers."""
        assert isinstance(module, Layered)
        groups = layer_groups(module, self.layer_decay, self.weight_decay)
        return torch.optim.AdamW(groups, lr=0.0, betas=(self.beta1, self.beta2), fused=True)


@dataclass(frozen=True, kw_only=True)
class Lars:
    """SGD with momentum whose steps are in proportion to each matrix (You and others, 2017; MAE table 10).

    Vectors and biases take plain steps, without decay.
    """

    momentum: float = 0.9
    """Memory of earlier steps."""

    trust: float = 0.001
    """Length of a step relative to the matrix's norm, at a learning rate of 1."""

    weight_decay: float = 0.0
    """Decay of matrices."""

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise SettingsError(f"momentum must lie in [0, 1), got {self.momentum}")
        for name in ("trust", "weight_decay"):
            if getattr(self, name) < 0:
                raise SettingsError(f"{name} must not be negative, got {getattr(self, name)}")

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of all parameters that learn."""
        decayed, exempt = decay_groups(module)
        groups = [
            {"params": exempt, "trust": None, "weight_decay": 0.0},
            {"params": decayed, "trust": self.trust, "weight_decay": self.weight_decay},
        ]
        filled = [group for group in groups if group["params"]]
        return LarsOptimizer(filled, {"lr": 0.0, "momentum": self.momentum})


class LarsOptimizer(torch.optim.Optimizer):
    """See `Lars`. timm's differs: it leaves matrices unadapted without decay, and adds norms with it."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        change = gradient.add(parameter, alpha=group["weight_decay"])
        if group["trust"] is not None:
            size, length = parameter.norm(), change.norm()
            known = (size > 0) & (length > 0)
            change = change * torch.where(known, group["trust"] * size / length, 1.0)
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        state["momentum_buffer"].mul_(group["momentum"]).add_(change)
        parameter.add_(state["momentum_buffer"], alpha=-group["lr"])


@dataclass(frozen=True, kw_only=True)
class Muon:
    """Muon (Jordan, 2024) for the matrices of Transformer blocks, AdamW for all the rest.

    A step on a matrix is its gradient's momentum made orthogonal, scaled as by Liu and others (2025) to the usual size of
    AdamW's steps, so that AdamW's rate and decay serve both. The fused projection of queries, keys and
    values is taken as the three matrices that it holds. Orthogonal is meant roughly: five Newton-Schulz
    iterations, in bfloat16 on a GPU as published, and in float32 on a CPU.
    """

    momentum: float = 0.95
    """Memory of the gradient, in Nesterov's form, for matrices."""

    beta1: float = 0.9
    """AdamW's memory of the gradient."""

    beta2: float = 0.95
    """AdamW's memory of its square."""

    weight_decay: float = 0.05
    """Decay of matrices and tokens; vectors and biases have none."""

    def __post_init__(self) -> None:
        AdamW(beta1=self.beta1, beta2=self.beta2, weight_decay=self.weight_decay)
        if not 0 <= self.momentum < 1:
            raise SettingsError(f"momentum must lie in [0, 1), got {self.momentum}")

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of all parameters that learn; its rate is set before every step."""
        names = {parameter: f".{name}" for name, parameter in module.named_parameters()}
        decayed, exempt = decay_groups(module)
        inner = [p for p in decayed if p.ndim == 2 and ".blocks." in names[p]]
        fused = [p for p in inner if names[p].endswith(".qkv.weight")]
        single = [p for p in inner if not names[p].endswith(".qkv.weight")]
        rest = [p for p in decayed if not (p.ndim == 2 and ".blocks." in names[p])]
        decay = self.weight_decay
        groups = [
            {"params": exempt, "matrices": 0, "weight_decay": 0.0},
            {"params": rest, "matrices": 0, "weight_decay": decay},
            {"params": single, "matrices": 1, "weight_decay": decay},
            {"params": fused, "matrices": 3, "weight_decay": decay},
        ]
        filled = [group for group in groups if group["params"]]
        betas = (self.beta1, self.beta2)
        return MuonOptimizer(filled, {"lr": 0.0, "momentum": self.momentum, "betas": betas})


class MuonOptimizer(torch.optim.Optimizer):
    """See `Muon`. torch's own takes no vectors, and neither it nor timm's parts a fused projection."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            learning = [p for p in group["params"] if p.grad is not None]
            if group["matrices"]:
                for parameter in learning:
                    self._turn(parameter, group)
            elif learning:
                self._adamw(learning, group)

    def _turn(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        momentum = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        parts = gradient.lerp(momentum, group["momentum"]).unflatten(0, (group["matrices"], -1))
        turned = orthogonal(parts.bfloat16() if parts.is_cuda else parts)
        size = 0.2 * max(parts.shape[1:]) ** 0.5  # the root mean square of AdamW's steps
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(turned.flatten(0, 1).to(parameter.dtype), alpha=-group["lr"] * size)

    def _adamw(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        states = [self.state[parameter] for parameter in parameters]
        for parameter, state in zip(parameters, states, strict=True):
            if not state:
                state["step"] = torch.zeros((), device=parameter.device)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
        beta1, beta2 = group["betas"]
        adamw(
            parameters,
            [parameter.grad for parameter in parameters if parameter.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=1e-8,
            maximize=False,
        )


def orthogonal(matrices: Float[Tensor, "k rows columns"]) -> Float[Tensor, "k rows columns"]:
    """Each matrix with all its singular values brought near 1 (Jordan, 2024: five quintic Newton-Schulz iterations)."""
    tall = matrices.shape[-2] > matrices.shape[-1]
    wide = matrices.mT if tall else matrices
    wide = wide / wide.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        square = wide @ wide.mT
        wide = 3.4445 * wide + (-4.7750 * square + 2.0315 * square @ square) @ wide
    return wide.mT if tall else wide


AnyOptimizer = (
    Annotated[AdamW, Kind("adamw")]
    | Annotated[LayerwiseAdamW, Kind("layerwise-adamw")]
    | Annotated[Lars, Kind("lars")]
    | Annotated[Muon, Kind("muon")]
)

_UNDECAYED = ("pos_embed", "cls_token")


def layer_groups(module: Any, layer_decay: float, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups of a `Layered` module: scale of the learning rate and weight decay of each.

    With L layers, the scale of layer i is layer_decay^(L - 1 - i).
    """
    groups: dict[tuple[int, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            last = name.rpartition(".")[2]
            exempt = parameter.ndim <= 1 or last == "bias" or last in _UNDECAYED
            key = (module.layer_of(name), 0.0 if exempt else weight_decay)
            groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": found,
            "scale": layer_decay ** (module.layers - 1 - layer),
            "weight_decay": decay,
        }
        for (layer, decay), found in groups.items()
    ]


def decay_groups(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Parameters with and without weight decay, in the module's order.

    As published: vectors and biases are exempt; class and mask tokens, which have three dimensions,
    are not.
    """
    decayed: list[nn.Parameter] = []
    exempt: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            vector = parameter.ndim <= 1 or name.rpartition(".")[2] == "bias"
            (exempt if vector else decayed).append(parameter)
    return decayed, exempt
