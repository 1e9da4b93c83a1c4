"""Every study of the package exists at every scale that its images allow, and says what the paper says."""

from dataclasses import replace

import pytest

from unmask.contracts import Size
from unmask.errors import SettingsError
from unmask.masking import SquareMasking
from unmask.objectives import MAE
from unmask.objectives.decoders import SelfAttentionDecoder
from unmask.study import Study, Trial, Variation
from unmask.study.ablations import STUDIES, find_study, objective
from unmask.study.study import PAPER, SCALES, SCORES, SMALL, TINY

EVERY = [(name, scale) for name in STUDIES for scale in ("tiny", "small")]


@pytest.mark.parametrize(("name", "scale"), EVERY)
def test_every_variation_exists_and_is_another(name: str, scale: str) -> None:
    study = STUDIES[name]
    trials = study.trials((study.scale or SCALES[scale]).base)
    assert list(trials) == [variation.name for variation in study.variations]
    told = [repr(trial) for trial in trials.values()]
    assert len(set(told)) == len(told), "two variations are one"


@pytest.mark.parametrize("name", STUDIES)
def test_published_values_are_of_what_is_measured(name: str) -> None:
    study = STUDIES[name]
    for variation in study.variations:
        for measure, value in variation.published.items():
            assert measure in study.scores if study.scores else measure == "hours"
            assert 50 < value < 90 or measure == "hours"
    assert set(study.scores) <= set(SCORES)


@pytest.mark.parametrize("name", [n for n in STUDIES if n not in ("decoder-depth", "noise")])
def test_the_base_of_a_study_is_the_base_of_its_scale(name: str) -> None:
    """So that studies share its runs; a small decoder has fewer blocks than the paper's eight."""
    study = STUDIES[name]
    if study.scale is None:
        assert study.trials(TINY.base)[study.base] == TINY.base


def test_the_papers_decoders() -> None:
    widths = STUDIES["decoder-width"].trials(PAPER.base)
    decoders = [_decoder(trial) for trial in widths.values()]
    assert [d.embed_dim for d in decoders] == [128, 256, 512, 768, 1024]  # table 1b
    assert {d.embed_dim // d.num_heads for d in decoders} == {32}
    depths = STUDIES["decoder-depth"].trials(PAPER.base)
    assert [_decoder(trial).depth for trial in depths.values()] == [1, 2, 4, 8, 12]


def _decoder(trial: Trial) -> SelfAttentionDecoder:
    objective = trial.recipe.objective
    assert isinstance(objective, MAE)
    assert isinstance(objective.decoder, SelfAttentionDecoder)
    return objective.decoder


def test_epochs_and_blocks_are_relative_to_the_model() -> None:
    epochs = [t.recipe.epochs for t in STUDIES["schedule"].trials(PAPER.base).values()]
    assert epochs == [100, 200, 400, 800, 1600]  # figure 7
    blocks = STUDIES["partial"].trials(SMALL.base)
    trained = {name: trial.transfer.task.trained_blocks for name, trial in blocks.items()}
    assert trained == {"0": "0", "half": "half", "1": "1", "half of them": "6", "all": "all"}


def test_few_labels_take_as_many_steps() -> None:
    trials = STUDIES["noise"].trials(TINY.base)
    seen = {
        trial.transfer.epochs * (1.0 if trial.labels == "all" else int(trial.labels[:-1]) / 100)
        for trial in trials.values()
    }
    assert {round(epochs, 9) for epochs in seen} == {TINY.base.transfer.epochs}


def test_an_impossible_variation_is_told_with_the_size_that_fits() -> None:
    with pytest.raises(SettingsError, match=r"squares of 4 x 4: .*256 x 256") as caught:
        STUDIES["mask-sampling"].trials(PAPER.base)
    assert "nothing was run" in str(caught.value)
    STUDIES["mask-sampling"].trials(PAPER.base.at_size(Size(256, 256)))


def test_all_impossible_variations_are_told_at_once() -> None:
    wrong = (
        Variation(name="three", change=objective(masking=SquareMasking(side=3))),
        Variation(name="base", change=lambda trial: trial),
        Variation(name="five", change=objective(masking=SquareMasking(side=5))),
    )
    study = Study(title="t", source="s", base="base", variations=wrong)
    with pytest.raises(SettingsError, match=r"(?s)three: .*five: "):
        study.trials(TINY.base)


def test_some_variations_bring_what_they_are_compared_with() -> None:
    some = STUDIES["mask-ratio"].only(["90 %"])
    assert [variation.name for variation in some.variations] == ["75 %", "90 %"]
    noise = STUDIES["noise"].only(["pixel noise at 10%"])
    assert [v.name for v in noise.variations] == ["no noise at 10%", "pixel noise at 10%"]
    assert noise.base == "no noise at 10%"
    with pytest.raises(SettingsError, match=r"unknown variation '91 %'; did you mean '90 %'"):
        STUDIES["mask-ratio"].only(["91 %"])


def test_studies_that_make_no_sense() -> None:
    study = STUDIES["target"]
    with pytest.raises(SettingsError, match="is not one of the variations"):
        replace(study, base="pixel")
    with pytest.raises(SettingsError, match="have the same name"):
        replace(study, variations=(*study.variations, study.variations[0]))
    with pytest.raises(SettingsError, match="scores or time"):
        replace(study, scores=(), timed=False)
    with pytest.raises(SettingsError, match="unknown study 'targets'; did you mean 'target'"):
        find_study("targets")
