"""Schedules for the size of crops: constant, or growing (progressive resolution)."""

from dataclasses import dataclass
from typing import Annotated

from unmask.contracts import Size
from unmask.errors import SettingsError
from unmask.spec import Kind, within


@dataclass(frozen=True, kw_only=True)
class SteadySize:
    """Crops of the full size in every epoch."""

    def stages_to(self, last: Size, unit: int) -> tuple[Size, ...]:
        """The only size."""
        return (last,)


@dataclass(frozen=True, kw_only=True)
class RisingSize:
    """Progressive resolution: small crops first, then larger ones in equal steps, for equal shares of the epochs.

    Small crops have fewer patches and cost less. Position embeddings are made for the full size and resampled. FastMIM
    (2022) pretrains at 128 pixels only; DailyMAE increases the resolution.
    """

    first: Size = Size(128, 128)
    """Size of the first crops in pixels; the last have the image size."""

    stages: int = 4
    """Number of sizes, including the first and the last."""

    def __post_init__(self) -> None:
        within(self, "[2, inf)", "stages", usual="4 is usual, and sizes:steady has one size")

    def stages_to(self, last: Size, unit: int) -> tuple[Size, ...]:
        """All sizes in order, in nearly equal steps, each a multiple of `unit` pixels.

        Raises:
            SettingsError: if the first size is not a multiple of the unit or not smaller, or there are too many stages.

        >>> [size.width for size in RisingSize().stages_to(Size(224, 224), 16)]
        [128, 160, 192, 224]
        """
        self._check(last, unit)
        between = self.stages - 1
        return tuple(
            Size(*(a + unit * round((b - a) // unit * stage / between) for a, b in zip(self.first, last, strict=True)))
            for stage in range(self.stages)
        )  # fmt: skip

    def _check(self, last: Size, unit: int) -> None:
        first = self.first
        if first.height % unit or first.width % unit or not first.height or not first.width:
            near = Size(*(max(1, round(side / unit)) * unit for side in first))
            raise SettingsError(
                f"--sizes.first must be a positive multiple of {unit} pixels, the side of a masking unit, got {first}; the "
                f"nearest is {near} (--sizes.first {near})"
            )
        if first.height > last.height or first.width > last.width or first == last:
            raise SettingsError(
                f"--sizes.first must be smaller than the image size, got {first} and {last}; use a smaller "
                "--sizes.first or a larger --image-size, or sizes:steady for one size"
            )
        most = 1 + max(b - a for a, b in zip(first, last, strict=True)) // unit
        if not 2 <= self.stages <= most:
            raise SettingsError(
                f"--sizes.stages must be from 2 to {most}, the multiples of {unit} pixels from {first} to {last}, got "
                f"{self.stages}"
            )


AnySizes = Annotated[SteadySize, Kind("steady")] | Annotated[RisingSize, Kind("rising")]
