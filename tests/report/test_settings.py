"""Settings of runs as a table."""

from dataclasses import replace
from pathlib import Path

from runs import tiny

from unmask.masking import BlockMasking
from unmask.report.settings import differing, settings


def test_only_what_differs_is_marked(images_here: Path) -> None:
    one = tiny.make_run(images_here)
    objective = replace(tiny.RECIPE.objective, masking=BlockMasking(ratio=0.5))
    other = tiny.make_run(images_here, recipe=replace(tiny.RECIPE, objective=objective, epochs=3.0))
    differ, same = differing([settings(one), settings(other)])
    assert differ["objective.masking"] == ["random", "block"]
    assert differ["objective.masking.ratio"] == ["0.75", "0.5"]
    assert differ["epochs"] == ["2", "3"]
    # a setting that only one of them has
    assert all(values[0] == "" for name, values in differ.items() if name.startswith("objective.masking.") and name != "objective.masking.ratio")  # fmt: skip
    assert same["seed"] == "0"
    assert same["encoder.embed_dim"] == "8"
    assert not differ.keys() & same.keys()
