"""Training a tokenizer: learn discrete codes of image patches and compare them with k-means on held-out images."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from unmask.contracts import ImageSource
from unmask.data import AnySource
from unmask.data.labelled import Subset
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
_HELD_OUT_MOST = 1000  # images; more would hardly change the result


@dataclass(frozen=True, kw_only=True)
class Tokenize:
    """Train a tokenizer."""

    command: ClassVar[str] = "tokenizer"
    """The command that creates such runs."""

    is_scored: ClassVar[bool] = True
    """Whether the run ends with a score."""

    recipe: Tokenizing
    """Settings that change the result."""

    @property
    def init(self) -> str | None:
        """None: its weights are always random, from the seed."""
        return None

    def knows(self, images: Images) -> bool:
        """True: annotations do not matter here."""
        return True

    def open(self, data: AnySource, seed: int) -> Images:
        """The training images, and at most 1,000 others: the data's test images, or a tenth drawn from the seed.

        Raises:
            DataError: if there is only one image.
        """
        return open_images(data, seed)

    def model(self, run: Setting) -> None:
        """None: a tokenizer has no encoder."""
        return

    def build(self, run: Setting, weights: Weights | None = None) -> PatchTokenizer:
        """The tokenizer with random weights from the seed."""
        with seeded("weights", run.seed):
            return self.recipe.tokenizer.build(
                self.recipe.patch_size, run.channels, run.statistics.tensors()
            )

    def fit(self, run: Setting, source: ImageSource, module: nn.Module) -> None:
        """Nothing to fit."""

    def change(self, run: Setting) -> Change | None:
        """None: batches stay unchanged."""
        return None

    def watch(self, run: Setting, source: ImageSource, module: nn.Module) -> None:
        """No check: the score at the end measures the codes."""
        return

    def score(self, run: Setting, module: nn.Module, images: Images) -> Outcome | None:
        """Evaluate the codes on held-out images, compared with k-means; only in the first process."""
        if not here().first:
            return None
        assert images.test is not None
        assert isinstance(module, PatchTokenizer)
        result, pictures, unreadable = judge(module, run, self.recipe, images.train, images.test)
        return Outcome(to_json(result), result, unreadable, tuple(pictures))


def open_images(data: AnySource, seed: int) -> Images:
    """The training images, and at most 1,000 held-out ones: the data's test images, or a tenth drawn from the seed.

    Raises:
        DataError: if there is only one image.
    """
    train = data.open("train")
    random = np.random.default_rng(derive("held out", seed))
    if "test" in data.splits():
        test = data.open("test")
        rows = np.sort(random.permutation(len(test))[:_HELD_OUT_MOST])
        if test.channels != train.channels:
            raise DataError(
                f"the training images have {train.channels} channels and the test images "
                f"{test.channels}; both need the same number"
            )
        return Images(train, Subset(test, rows), split="the data's own test images")
    if len(train) < 2:
        raise DataError(
            f"{train.where} holds one image, but a tokenizer needs other images for its evaluation; "
            "add images"
        )
    order = random.permutation(len(train))
    count = min(_HELD_OUT_MOST, max(1, round(_HELD_OUT_SHARE * len(train))))
    held, learning = np.sort(order[:count]), np.sort(order[count:])
    words = f"held out, drawn from seed {seed}"
    return Images(Subset(train, learning), Subset(train, held), split=words)
