"""The scores of an encoder, their figures and their words."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from unmask.data.in_order import Unreadable
from unmask.evaluation.frozen import PLAIN, Row
from unmask.evaluation.protocols import Question, Subject
from unmask.evaluation.vectors import Fitted
from unmask.evaluation.verdict import Verdict, verdicts
from unmask.objectives import AnyObjective
from unmask.pictures.accuracy import Point, millions
from unmask.runs.folder import RunFolder
from unmask.runs.run import parameter_count
from unmask.runs.weights import shape_of
from unmask.spec import kind_of
from unmask.tasks.classify import Accuracy

_FEATURES = {
    "cls": "class token",
    "mean": "mean of patches",
    "gem": "generalised mean of patches",
    "patches": "patch tokens",
    "pixels": "as they are",
    "0": "0 blocks trained",
    "half": "half a block trained",
    "1": "1 block trained",
    "all": "all blocks trained",
}


class Evaluation(NamedTuple):
    """How good an encoder is by one protocol."""

    rows: list[Row]
    """The scores: a row for each arm (the encoder and its controls), feature and amount of labels.

    `row.mean` and `row.spread` are over the draws, `row.scores` holds each draw's score in full.
    """
    measure: str
    """What a score is: top-1, or mAP where an image may belong to several classes."""
    chance: float
    """The score of guessing."""
    train_images: int
    """Images learned from, those that could not be read left out."""
    test_images: int
    """Images scored on."""
    split: str
    """How train and test images were divided, in words."""
    unreadable: Unreadable
    """(name, reason) of images that could not be read."""
    verdicts: list[Verdict]
    """Whether the encoder is better than each control; empty where an image may belong to several classes."""


class Judged(NamedTuple):
    """The scores of an encoder."""

    question: Question
    subject: Subject
    data: str
    rows: list[Row]
    counts: tuple[int, int]
    """Number of training images and of test images."""
    unreadable: Unreadable
    fitted: Fitted | None
    """The rule that whitened the encoder's vectors, if any."""
    command: str = ""
    """The command line that asked for them; empty for a call from Python."""

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.subject.labelled.train.annotations.names)

    @property
    def chance(self) -> float:
        """The score of random guessing."""
        return self.rows[0].scores[0].chance

    @property
    def majority(self) -> float | None:
        """The score of always answering the largest class; None for scores that do not say it."""
        score = self.rows[0].scores[0]
        return score.majority if isinstance(score, Accuracy) else None

    @property
    def measure(self) -> str:
        """The name of the scores, such as top-1."""
        return self.rows[0].scores[0].measure

    @property
    def parameters(self) -> int:
        """Parameters of the encoder."""
        return parameter_count(self.subject.model.encoder)

    @property
    def method(self) -> str:
        """The method that made the weights, as far as they say."""
        model, folder = self.subject.model, RunFolder(self.subject.path)
        objective = model.objective_spec
        if objective is not None:
            return kind_of(AnyObjective, objective)
        return "fine-tuned" if folder.made_by("finetune") else Path(self.subject.path).stem

    def result(self) -> dict[str, Any]:
        """All figures, for JSON."""
        model = self.subject.model
        return {
            "command": self.command,
            "run": self.subject.path,
            "weights": model.about,
            "step": model.step,
            "method": self.method,
            "parameters": self.parameters,
            "shape": shape_of(model.spec.encoder),
            "data": self.data,
            "split": self.subject.labelled.split,
            "train_images": self.counts[0],
            "test_images": self.counts[1],
            "classes": self.classes,
            "measure": self.measure,
            "chance": self.chance,
            "largest_class": self.majority,
            "left_out": len(self.unreadable),
            "scores": [_figures(row) for row in self.rows],
            "verdicts": [verdict_json(one) for one in self.verdicts],
        }

    @property
    def verdicts(self) -> list[Verdict]:
        """Whether the encoder is better than each control."""
        return verdicts(self.rows)

    @property
    def evaluation(self) -> Evaluation:
        """The scores for Python."""
        return Evaluation(
            self.rows,
            self.measure,
            self.chance,
            *self.counts,
            self.subject.labelled.split,
            self.unreadable,
            self.verdicts,
        )

    @property
    def title(self) -> str:
        """Title of a picture."""
        model = self.subject.model
        return f"{self.question.protocol} on {short(self.data)}: {model.about}, {millions(self.parameters)}"


def _figures(row: Row) -> dict[str, Any]:
    return {
        "arm": row.arm,
        "protocol": row.protocol,
        "feature": row.feature,
        "vectors": row.vectors,
        "labels": row.labels,
        "accuracy": row.mean,
        "spread": row.spread,
        "accuracies": row.values,
        **balanced(row),
        "setting": row.setting,
        "seconds": round(row.seconds, 3),
        "images_per_second": round(row.images_per_second, 1),
        "features": row.source,
    }


def verdict_json(one: Verdict) -> dict[str, Any]:
    """A verdict for JSON, with its sentence."""
    return {**asdict(one), "outcome": one.outcome, "words": one.words}


def balanced(row: Row) -> dict[str, float]:
    """The mean balanced accuracy over the draws; empty for scores without one."""
    balanced = [score.balanced for score in row.scores if isinstance(score, Accuracy)]
    return {"balanced_accuracy": sum(balanced) / len(balanced)} if balanced else {}


def feature_words(row: Row) -> str:
    """The feature that was scored, or the blocks that were trained, in words."""
    words = _FEATURES.get(row.feature, f"{row.feature} blocks trained")
    if row.vectors == PLAIN:
        return words
    return row.vectors if row.feature == "pixels" else f"{words}, {row.vectors}"


def percent(row: Row) -> str:
    """The mean score over the draws, and the spread of several."""
    several = f" ± {row.spread:.1%}" if len(row.scores) > 1 else ""
    return f"{row.mean:.1%}{several}"


def short(data: str) -> str:
    """The last part of a path."""
    return Path(data).name or data


def point(row: Row) -> Point:
    """The score for a picture."""
    return Point(row.mean, row.spread)
