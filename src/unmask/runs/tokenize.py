"""Training a tokenizer: discrete codes of image patches, judged beside k-means on images it has not seen."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from unmask.contracts import ImageSource
from unmask.data import AnySource
from unmask.data.subset import Subset
from unmask.errors import DataError
from unmask.formats.model import Weights
from unmask.randomness import derive, seeded
from unmask.recipes import Tokenizing
from unmask.runs.codes import judge
from unmask.runs.job import Change, Images, Outcome, Setting
from unmask.spec import to_json
from unmask.targets.tokenizer import PatchTokenizer
from unmask.training.distributed import here

_HELD_OUT_SHARE = 0.1
_HELD_OUT_MOST = 1000  # images; more would hardly change the figures


@dataclass(frozen=True, kw_only=True)
class Tokenize:
    """Train a tokenizer."""

    command: ClassVar[str] = "tokenizer"
    """The command that makes such runs."""

    is_scored: ClassVar[bool] = True
    """Whether there is a score at the end."""

    recipe: Tokenizing
    """Everything that changes the result."""

    @property
    def init(self) -> str | None:
        """Nothing: its weights are drawn from the seed."""
        return None

    def knows(self, images: Images) -> bool:
        """Annotations do not matter here."""
        return True

    def open(self, data: AnySource, seed: int) -> Images:
        """The training images, and at most 1,000 others: the data's test images, or a tenth drawn from the seed.

        Raises:
            DataError: if there is one image alone.
        """
        return open_images(data, seed)

    def model(self, run: Setting) -> None:
        """None: a tokenizer has no encoder to take away."""
        return

    def build(self, run: Setting, weights: Weights | None = None) -> PatchTokenizer:
        """The tokenizer, its weights drawn from the seed."""
        with seeded("weights", run.seed):
            return self.recipe.tokenizer.build(
                self.recipe.patch_size, run.channels, run.statistics.tensors()
            )

    def fit(self, run: Setting, source: ImageSource, module: nn.Module) -> None:
        """Nothing is fitted."""

    def change(self, run: Setting) -> Change | None:
        """Batches stay as they are."""
        return None

    def watch(self, run: Setting, source: ImageSource, module: nn.Module) -> None:
        """Nobody looks: its codes are judged at the end."""
        return

    def score(self, run: Setting, module: nn.Module, images: Images) -> Outcome | None:
        """What its codes keep of images that it has not seen, beside k-means; the first process judges."""
        if not here().first:
            return None
        assert images.test is not None
        assert isinstance(module, PatchTokenizer)
        result, pictures, unreadable = judge(module, run, self.recipe, images.train, images.test)
        return Outcome(to_json(result), result, unreadable, tuple(pictures))


def open_images(data: AnySource, seed: int) -> Images:
    """The training images, and at most 1,000 others: the data's test images, or a tenth drawn from the seed.

    Raises:
        DataError: if there is one image alone.
    """
    train = data.open("train")
    random = np.random.default_rng(derive("held out", seed))
    if "test" in data.splits():
        test = data.open("test")
        rows = np.sort(random.permutation(len(test))[:_HELD_OUT_MOST])
        if test.channels != train.channels:
            raise DataError(
                f"the training images have {train.channels} channels and the test images "
                f"{test.channels}; both must have as many"
            )
        return Images(train, Subset(test, rows), split="the data's own test images")
    if len(train) < 2:
        raise DataError(
            f"{train.where} holds one image, and a tokenizer is judged on others than it learns "
            "from; add more"
        )
    order = random.permutation(len(train))
    count = min(_HELD_OUT_MOST, max(1, round(_HELD_OUT_SHARE * len(train))))
    held, rest = np.sort(order[:count]), np.sort(order[count:])
    words = f"held out, drawn from seed {seed}"
    return Images(Subset(train, rest), Subset(train, held), split=words)
