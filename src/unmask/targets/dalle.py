"""The codes of DALL-E's released tokenizer as the target: what BEiT (section 2.1) and MAE (table 1d) predict.

The encoder half of the discrete VAE of Ramesh and others (2021, "Zero-shot text-to-image generation", appendix A.1).
Names of weights are those of the released file.
"""

from collections import OrderedDict
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.channels import Statistics
from unmask.errors import SettingsError
from unmask.masks import PatchMask
from unmask.patches import patch_grid, size_of
from unmask.targets.pixels import Levels
from unmask.targets.tokens import code_errors

CHANNELS = 3
_GROUPS = 4
_STRIDE = 2 ** (_GROUPS - 1)
_EDGE = 0.1  # pixels of 0 to 1 are squeezed to 0.1 to 0.9 (appendix A.3)


@dataclass(frozen=True, kw_only=True)
class DalleCodes:
    """Which of 8,192 codes the released encoder gives each hidden patch of a colour photograph.

    It looks at images of 8 pixels a patch (112 for 14 x 14), made from the crop itself; BEiT's code resizes the
    photograph anew. Each code depends on the whole picture around its patch. The file is read before the first step and kept
    with the weights; a run that has begun needs it no more.
    """

    path: str
    """The released `encoder.pkl`, or a file of its tensors."""

    codes: int = 8192
    """How many there are, in the file; 8,192 as released."""

    width: int = 256
    """Channels of the first blocks; 256 as released."""

    depth: int = 2
    """Blocks of each of the four groups; 2 as released."""

    def __post_init__(self) -> None:
        for name in ("codes", "width", "depth"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be at least 1, got {getattr(self, name)}")

    def build(self, patch_size: int, channels: int) -> "DalleTarget":
        """The target for patches of this size, the encoder's weights yet to be put in."""
        if channels != CHANNELS:
            raise SettingsError(
                f"DALL-E's tokenizer knows colour images, and these have {channels} "
                f"channel{'s' * (channels > 1)}; train one of your own with `unmask tokenizer`"
            )
        return DalleTarget(self, patch_size)


class _Conv(nn.Module):
    """A convolution that keeps the size, its weights named as in the file."""

    def __init__(self, into: int, out: int, side: int) -> None:
        super().__init__()
        self.w = nn.Parameter(
            torch.empty(out, into, side, side).normal_(std=(into * side**2) ** -0.5)
        )
        self.b = nn.Parameter(torch.zeros(out))

    def forward(self, values: Float[Tensor, "b into h w"]) -> Float[Tensor, "b out h w"]:
        """The same grid, other channels."""
        return F.conv2d(values, self.w, self.b, padding="same")


class _Block(nn.Module):
    """A residual block: what it adds, a quarter as wide inside, is divided by the square of the number of blocks."""

    def __init__(self, into: int, out: int, blocks: int) -> None:
        super().__init__()
        inside, self.gain = max(1, out // 4), 1 / blocks**2
        self.id_path: nn.Module = _Conv(into, out, 1) if into != out else nn.Identity()
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        for number, (before, after, side) in enumerate(
            [(into, inside, 3), (inside, inside, 3), (inside, inside, 3), (inside, out, 1)], start=1
        ):
            parts[f"relu_{number}"] = nn.ReLU()
            parts[f"conv_{number}"] = _Conv(before, after, side)
        self.res_path = nn.Sequential(parts)

    def forward(self, values: Float[Tensor, "b into h w"]) -> Float[Tensor, "b out h w"]:
        """The same grid."""
        return self.id_path(values) + self.gain * self.res_path(values)


class DalleEncoder(nn.Module):
    """Images to a score for each code at each place of an eighth of their size."""

    def __init__(self, codes: int, width: int, depth: int) -> None:
        super().__init__()
        parts: OrderedDict[str, nn.Module] = OrderedDict(input=_Conv(CHANNELS, width, 7))
        before = width
        for group in range(_GROUPS):
            inside: OrderedDict[str, nn.Module] = OrderedDict()
            for number in range(depth):
                inside[f"block_{number + 1}"] = _Block(
                    before, before := width * 2**group, _GROUPS * depth
                )
            if group < _GROUPS - 1:
                inside["pool"] = nn.MaxPool2d(2)
            parts[f"group_{group + 1}"] = nn.Sequential(inside)
        parts["output"] = nn.Sequential(
            OrderedDict[str, nn.Module](relu=nn.ReLU(), conv=_Conv(before, codes, 1))
        )
        self.blocks = nn.Sequential(parts)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b codes rows columns"]:
        """Scores, from pixels of 0 to 1."""
        return self.blocks((1 - 2 * _EDGE) * images + _EDGE)


class DalleTarget(nn.Module):
    """See `DalleCodes`. The encoder never learns here."""

    gives_levels = False
    present: Tensor
    """1 where the encoder's weights are in, else 0."""

    def __init__(self, spec: DalleCodes, patch_size: int) -> None:
        super().__init__()
        self.patch_size, self.path, self.out_dim = patch_size, spec.path, spec.codes
        self.tokenizer = DalleEncoder(spec.codes, spec.width, spec.depth).requires_grad_(False)
        self.register_buffer("present", torch.zeros(()))

    @property
    def complete(self) -> bool:
        """Whether the encoder's weights are in."""
        return bool(self.present > 0)

    def take(self, weights: dict[str, Tensor]) -> None:
        """Put the encoder's weights in; their shapes must be those of the spec."""
        self.tokenizer.load_state_dict(weights)
        self.present.fill_(1.0)

    def forward(
        self, images: UInt8[Tensor, "b c h w"], mask: PatchMask, statistics: Statistics
    ) -> Float[Tensor, "m r 1"]:
        """The number of the code of each hidden patch."""
        codes = self.codes_of(images)
        return codes[mask.image[:, None], mask.removed_index].float()[..., None]

    def codes_of(self, images: UInt8[Tensor, "b c h w"]) -> Int[Tensor, "b n"]:
        """The code of every patch, in image order; in float32 whatever the precision of the network."""
        rows, columns = patch_grid(size_of(images), self.patch_size)
        size = (rows * _STRIDE, columns * _STRIDE)
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            pixels = images.float() / 255
            if size_of(images) != size:
                pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 1)
            return self.tokenizer(pixels).argmax(1).flatten(1)

    def loss(
        self, prediction: Float[Tensor, "m r codes"], target: Float[Tensor, "m r 1"]
    ) -> Float[Tensor, "m r"]:
        """Cross-entropy of each patch."""
        return code_errors(prediction, target)

    def pixels(
        self,
        prediction: Float[Tensor, "m n codes"],
        images: Tensor,
        mask: PatchMask,
        statistics: Statistics,
        levels: Levels,
    ) -> Float[Tensor, "m n p"]:
        """Nothing can be drawn.

        Raises:
            SettingsError: always: it takes the decoder, which is another file.
        """
        raise SettingsError(
            "codes of DALL-E's encoder have no picture without its decoder, which unmask does not read; runs with "
            "objective.target:tokenizer can be drawn"
        )
