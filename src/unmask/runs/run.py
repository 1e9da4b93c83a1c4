"""A run as one spec, written to `spec.json`: the job, the images and the machine."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import nn

from unmask.channels import ChannelStatistics
from unmask.contracts import ImageSource
from unmask.data import AnySource, GroundMap, LabelsFile, Tiff
from unmask.data.band_files import BandReading, reading_of
from unmask.data.statistics import with_levels_of
from unmask.errors import ResourceError, SettingsError
from unmask.formats.model import ModelSpec, Weights
from unmask.recipes import Recipe, Tokenizing, Transfer
from unmask.runs.finetune import Finetune
from unmask.runs.folder import SPEC_VERSION, RunFolder
from unmask.runs.pretrain import Pretrain
from unmask.runs.tokenize import Tokenize
from unmask.spec import Kind, digest, from_json, to_json, within
from unmask.training.hardware import Hardware, memory_available
from unmask.training.schedules import steps_of

AnyJob = (
    Annotated[Pretrain, Kind("pretrain")]
    | Annotated[Finetune, Kind("finetune")]
    | Annotated[Tokenize, Kind("tokenize")]
)
"""All kinds of jobs."""

USUAL_SET_ASIDE = 0.05
"""Share of unreadable images from which on a run stops, unless it says another."""

_MAY_CHANGE = ("hardware", "save_every_minutes", "max_set_aside", "learned_before")


@dataclass(frozen=True, kw_only=True)
class Run:
    """The job, its images, and the machine."""

    spec_version: int
    """Version of this layout; newer versions are refused."""

    recipe_name: str
    """Name of the recipe that the run started from."""

    job: AnyJob
    """The job, with all settings that change the result, except data and seed."""

    data: AnySource
    """Where the images are."""

    images: int
    """Number of training images."""

    channels: int
    """Channels of an image."""

    fingerprint: str
    """Hash of the training images' names and sizes; the order of samples is valid only for them."""

    statistics: ChannelStatistics
    """Mean, standard deviation and range of each channel."""

    seed: int
    """Seed of weights, order, crops, masks and mixing, and of the split if the data have none."""

    hardware: Hardware
    """Settings that must not change the result."""

    save_every_minutes: float
    """Time between checkpoints; 0 saves after every step."""

    max_set_aside: float
    """Share of images that may be unusable before the run stops with an error."""

    unmask_version: str
    """The version of this package that started the run."""

    torch_version: str
    """The version of torch that started the run; exact resuming needs the same version."""

    minutes: float | None = None
    """Time after which the run ends, all of the command included; null for as many epochs as the recipe says."""

    learned_before: tuple[AnySource, ...] = ()
    """The images that its initial weights have learned from, as far as they are those of runs."""

    def __post_init__(self) -> None:
        if not 0 <= self.save_every_minutes < math.inf:
            raise SettingsError(
                f"save_every_minutes must be 0 or more, got {self.save_every_minutes}"
            )
        within(self, "(0, inf)", "minutes")
        if not 0 <= self.max_set_aside <= 1:
            raise SettingsError(
                f"max_set_aside must be a share between 0 and 1, got {self.max_set_aside}; 0.05 is 5 %"
            )

    @property
    def recipe(self) -> Recipe | Transfer | Tokenizing:
        """The recipe of the job."""
        return self.job.recipe

    @property
    def band_reading(self) -> BandReading | None:
        """How its multi-band images are read; None if grey and colour pictures of 8 bits are read alike."""
        data = self.data.data if isinstance(self.data, LabelsFile) else self.data
        needed = self.statistics.values == "float32" or self.channels not in (1, 3)
        if isinstance(data, GroundMap):
            reading = BandReading(channels=data.channels, no_data=data.no_data)
            return reading if needed else None
        if isinstance(data, Tiff):
            reading = reading_of(data)
        else:
            return None
        return reading if needed or reading != BandReading() else None

    @property
    def init(self) -> str | None:
        """Description of the initial weights; None for random weights from the seed."""
        return self.job.init

    @property
    def learned_from(self) -> tuple[AnySource, ...]:
        """All images that its weights have learned from, the last ones first."""
        return tuple(dict.fromkeys((self.data, *self.learned_before)))

    @property
    def steps(self) -> int:
        """Number of steps; of a run with a time, as estimated before the first one."""
        return steps_of(self.recipe.epochs, self.images, self.recipe.batch_size)

    def images_seen(self, step: int) -> int:
        """Number of images shown up to a step."""
        return step * self.recipe.batch_size

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        recipe = self.recipe
        epoch = step * recipe.batch_size / self.images
        return recipe.schedule.rate(epoch, recipe.epochs, recipe.batch_size)

    @property
    def model(self) -> ModelSpec:
        """Shape and origin of the trained encoder; a tokenizer has none."""
        model = self.job.model(self)
        assert model is not None
        return model

    def build(self, weights: Weights | None = None) -> nn.Module:
        """The module to train, from `weights` or with random weights from the seed.

        Raises:
            ResourceError: if it does not fit in memory; the spec of a run can say any size.
        """
        with torch.device("meta"):
            needed = sum(tensor.nbytes for tensor in self.job.build(self).state_dict().values())
        room = memory_available(torch.device("cpu"))
        if needed > room:
            raise ResourceError(
                f"the model of this run takes {needed / 2**30:,.1f} GiB of memory, but only {room / 2**30:,.1f} GiB "
                "are free; choose a smaller --recipe"
            )
        return self.job.build(self, weights)

    @property
    def hash(self) -> str:
        """Short hash of all fields that must stay the same when a run is resumed."""
        return digest({k: value for k, value in to_json(self).items() if k not in _MAY_CHANGE})

    @classmethod
    def read(cls, folder: RunFolder, *commands: str) -> "Run":
        """The run in a folder; if `command` is given, it must have created the run.

        Raises:
            RunError: if there is no run, or it is damaged, of a newer version, or of another command.
        """
        data = folder.read_spec(*commands)
        try:
            return from_json(cls, data)
        except SettingsError as error:
            raise folder.unreadable(error) from None


def new_run(
    recipe_name: str,
    job: AnyJob,
    data: AnySource,
    source: ImageSource,
    statistics: ChannelStatistics,
    hardware: Hardware,
    *,
    seed: int = 0,
    save_every_minutes: float = 10.0,
    max_set_aside: float = USUAL_SET_ASIDE,
    minutes: float | None = None,
    learned_before: tuple[AnySource, ...] = (),
) -> Run:
    """A run of a job on the images of a source, with the versions of this package and of torch."""
    import unmask

    return Run(
        spec_version=SPEC_VERSION,
        recipe_name=recipe_name,
        job=job,
        data=data,
        images=len(source),
        channels=source.channels,
        fingerprint=source.fingerprint,
        statistics=with_levels_of(source, statistics),
        seed=seed,
        hardware=hardware,
        save_every_minutes=save_every_minutes,
        max_set_aside=max_set_aside,
        unmask_version=unmask.__version__,
        torch_version=torch.__version__,
        minutes=minutes,
        learned_before=learned_before,
    )


def parameter_count(module: nn.Module) -> int:
    """Parameters of a module, position tables included even if they are fixed."""
    return sum(parameter.numel() for parameter in module.parameters())
