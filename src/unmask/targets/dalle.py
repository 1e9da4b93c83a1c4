"""The codes of DALL-E's released tokenizer as the target, which BEiT (section 2.1) and MAE (table 1d) predict.

The encoder of the discrete VAE of Ramesh and others (2021, "Zero-shot text-to-image generation", appendix A.1). Weights
have the names of the released file.
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
from unmask.spec import MOST_BLOCKS, MOST_CODES, sized
from unmask.targets.pixels import Levels
from unmask.targets.tokens import code_errors

CHANNELS = 3
_GROUPS = 4  # of blocks, fixed in the released model
_STRIDE = 2 ** (_GROUPS - 1)  # each group but the last halves the resolution
_MARGIN = 0.1  # pixels from 0 to 1 are mapped to 0.1 to 0.9 (appendix A.3)


@dataclass(frozen=True, kw_only=True)
class DalleCodes:
    """The code, one of 8,192, that the released encoder gives to each hidden patch of a colour photograph.

    The encoder sees the crop at 8 pixels per patch (112 pixels for 14 x 14 patches); BEiT's code resizes the original
    photograph a second time instead. Each code depends on pixels all around its patch. The file is read before the first
    step and saved with the run's weights, so the run does not need it afterwards.
    """

    path: str
    """The released `encoder.pkl`, or a file of its tensors."""

    codes: int = 8192
    """Number of codes in the file (released: 8,192)."""

    width: int = 256
    """Channels of the first blocks (released: 256)."""

    depth: int = 2
    """Blocks in each of the four groups (released: 2)."""

    def __post_init__(self) -> None:
        sized(self, "codes", most=MOST_CODES)
        sized(self, "width")
        sized(self, "depth", most=MOST_BLOCKS)

    def build(self, patch_size: int, channels: int) -> "DalleTarget":
        """The target for patches of this size; `take` must load the encoder's weights."""
        if channels != CHANNELS:
            raise SettingsError(
                f"DALL-E's tokenizer needs colour images with 3 channels, and these have {channels}; train your own "
                "with `unmask tokenizer`"
            )
        return DalleTarget(self, patch_size)


class _Conv(nn.Module):
    """A convolution with padding, its weights named as in the file."""

    def __init__(self, into: int, out: int, side: int) -> None:
        super().__init__()
        self.w = nn.Parameter(
            torch.empty(out, into, side, side).normal_(std=(into * side**2) ** -0.5)
        )
        self.b = nn.Parameter(torch.zeros(out))

    def forward(self, values: Float[Tensor, "b into h w"]) -> Float[Tensor, "b out h w"]:
        """The same resolution, other channels."""
        return F.conv2d(values, self.w, self.b, padding="same")


class _Block(nn.Module):
    """A residual bottleneck block; the residual is divided by the squared number of blocks."""

    def __init__(self, into: int, out: int, blocks: int) -> None:
        super().__init__()
        hidden, self.gain = max(1, out // 4), 1 / blocks**2
        self.id_path: nn.Module = _Conv(into, out, 1) if into != out else nn.Identity()
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        for number, (before, after, side) in enumerate(
            [(into, hidden, 3), (hidden, hidden, 3), (hidden, hidden, 3), (hidden, out, 1)], start=1
        ):
            parts[f"relu_{number}"] = nn.ReLU()
            parts[f"conv_{number}"] = _Conv(before, after, side)
        self.res_path = nn.Sequential(parts)

    def forward(self, values: Float[Tensor, "b into h w"]) -> Float[Tensor, "b out h w"]:
        """The same resolution."""
        return self.id_path(values) + self.gain * self.res_path(values)


class DalleEncoder(nn.Module):
    """Images to scores of all codes, at an eighth of the resolution."""

    def __init__(self, codes: int, width: int, depth: int) -> None:
        super().__init__()
        parts: OrderedDict[str, nn.Module] = OrderedDict(input=_Conv(CHANNELS, width, 7))
        before = width
        for group in range(_GROUPS):
            members: OrderedDict[str, nn.Module] = OrderedDict()
            for number in range(depth):
                members[f"block_{number + 1}"] = _Block(
                    before, before := width * 2**group, _GROUPS * depth
                )
            if group < _GROUPS - 1:
                members["pool"] = nn.MaxPool2d(2)
            parts[f"group_{group + 1}"] = nn.Sequential(members)
        parts["output"] = nn.Sequential(
            OrderedDict[str, nn.Module](relu=nn.ReLU(), conv=_Conv(before, codes, 1))
        )
        self.blocks = nn.Sequential(parts)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b codes rows columns"]:
        """Scores of all codes, from pixels between 0 and 1."""
        return self.blocks((1 - 2 * _MARGIN) * images + _MARGIN)


class DalleTarget(nn.Module):
    """See `DalleCodes`. The encoder is frozen."""

    gives_levels = False
    loss = staticmethod(code_errors)
    present: Tensor
    """1 if the encoder's weights are loaded, else 0."""

    def __init__(self, spec: DalleCodes, patch_size: int) -> None:
        super().__init__()
        self.patch_size, self.path, self.out_dim = patch_size, spec.path, spec.codes
        self.tokenizer = DalleEncoder(spec.codes, spec.width, spec.depth).requires_grad_(False)
        self.register_buffer("present", torch.zeros(()))

    @property
    def complete(self) -> bool:
        """Whether the encoder's weights are loaded."""
        return bool(self.present > 0)

    def take(self, weights: dict[str, Tensor]) -> None:
        """Load the encoder's weights; their shapes must be those of the spec."""
        self.tokenizer.load_state_dict(weights)
        self.present.fill_(1.0)

    def forward(
        self, images: UInt8[Tensor, "b c h w"], mask: PatchMask, statistics: Statistics
    ) -> Float[Tensor, "m r 1"]:
        """The code of each hidden patch."""
        codes = self.codes_of(images)
        return codes[mask.image[:, None], mask.removed_index].float()[..., None]

    def codes_of(self, images: UInt8[Tensor, "b c h w"]) -> Int[Tensor, "b n"]:
        """The code of every patch, in image order; in float32 whatever the precision of the run."""
        rows, columns = patch_grid(size_of(images), self.patch_size)
        size = (rows * _STRIDE, columns * _STRIDE)
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            pixels = images.float() / 255
            if size_of(images) != size:
                pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 1)
            return self.tokenizer(pixels).argmax(1).flatten(1)

    def pixels(
        self,
        prediction: Float[Tensor, "m n codes"],
        images: Tensor,
        mask: PatchMask,
        statistics: Statistics,
        levels: Levels,
    ) -> Float[Tensor, "m n p"]:
        """Always a SettingsError: pictures need DALL-E's decoder, which is a separate file."""
        raise SettingsError(
            "DALL-E's codes cannot be turned into pictures without its decoder, which unmask does not read; use a run "
            "with objective.target:tokenizer for pictures"
        )
