"""Samples of a page: every model sees the same file, whichever other files it cannot read."""

from typing import Any, NamedTuple

import torch

from unmask.channels import IMAGENET
from unmask.contracts import Sample
from unmask.data import Folder
from unmask.page.samples import Reader, samples_of


class Pictures(NamedTuple):
    """A source in memory: its names; a picture is as bright as the number in its name."""

    names: tuple[str, ...]
    where: str = "here"

    def __len__(self) -> int:
        return len(self.names)

    def name(self, position: int) -> str:
        return self.names[position]

    def __getitem__(self, position: Any) -> Any:
        level = int(self.names[position].partition(".")[0])
        return Sample(torch.full((3, 2, 2), level, dtype=torch.uint8), 0)


class Reading(Reader):
    """A reader that can read some of the files alone."""

    sources: dict[str, Pictures]

    def opened(self, data: Any) -> Any:
        return self.sources[self.name]


def test_a_file_that_one_model_refuses_does_not_shift_the_others() -> None:
    names = tuple(f"{number}.png" for number in range(5))
    Reading.sources = {"all": Pictures(names), "some": Pictures((names[0], *names[2:]))}
    readers = [
        Reading(name, IMAGENET, None, lambda pixels: pixels, Folder(path="nowhere"))
        for name in Reading.sources
    ]
    samples = samples_of(readers, None, 5)
    assert [sample.name for sample in samples] == list(names)
    seen = [{number: float(view.max()) for number, view in one.views.items()} for one in samples]
    assert seen == [{0: 0, 1: 0}, {0: 1}, {0: 2, 1: 2}, {0: 3, 1: 3}, {0: 4, 1: 4}]
