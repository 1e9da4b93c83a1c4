"""Studies on images with class maps or objects: scored by mIoU, box AP or mask AP instead of accuracy."""

from collections.abc import Mapping
from dataclasses import replace

from unmask.annotations import AnyAnnotations, ClassMaps, ObjectLabels, is_dense
from unmask.errors import SettingsError, UnmaskError
from unmask.recipes import TRANSFERS, choose_dense
from unmask.study.plan import Setting
from unmask.study.study import Score, Study, Trial

_SCORES: dict[type, tuple[Score, ...]] = {
    ClassMaps: ("finetune", "linear", "knn"),
    ObjectLabels: ("finetune",),
}
"""The protocols for each kind of dense annotations; the frozen ones are those of `evaluation.dense_protocols`."""


def measure_of(kind: AnyAnnotations) -> str:
    """What all scores of a study are."""
    if isinstance(kind, ClassMaps):
        return "mIoU"
    if isinstance(kind, ObjectLabels):
        return "mask AP" if kind.masks else "box AP"
    return "accuracy"


def study_for(study: Study, kind: AnyAnnotations) -> Study:
    """The study with the protocols that such images have; with dense annotations without the papers' accuracies."""
    if not is_dense(kind):
        return study
    possible = _SCORES[type(kind)]
    scores = tuple(score for score in study.scores if score in possible)
    plain = (replace(one, published={}, published_epochs={}) for one in study.variations)
    return replace(study, scores=scores or possible, variations=tuple(plain))


def base_for(base: Trial, kind: AnyAnnotations, images: int) -> Trial:
    """The base with the fine-tuning for so many images; of dense annotations at the image size of pretraining."""
    if not is_dense(kind):
        return base
    recipe = base.recipe
    transfer = TRANSFERS[choose_dense(recipe.encoder, kind, images)].recipe
    transfer = replace(transfer, encoder=recipe.encoder, image_size=recipe.image_size)
    return replace(base, transfer=transfer)


def check_built(trials: Mapping[str, Trial], setting: Setting) -> None:
    """Refuse encoders that the task cannot be built on, before anything runs.

    Raises:
        SettingsError: with the trial.
    """
    train, statistics = setting.labelled.train, setting.statistics.tensors()
    train_kind = train.annotations
    for name, trial in trials.items() if is_dense(train_kind) else ():
        transfer = trial.transfer
        encoder = transfer.encoder.build(transfer.image_size, train.channels, statistics)
        try:
            transfer.task.build(encoder, train_kind)
        except UnmaskError as error:
            raise SettingsError(f"{name}: {error}") from None
