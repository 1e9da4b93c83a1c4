"""How good frozen features are: python examples/evaluate.py [RUN FOLDER_OF_CLASSES].

Without arguments a small model is trained on scikit-learn's digits first, in a temporary folder.
"""

import sys
import tempfile
from pathlib import Path

import torch

import unmask
from unmask import Model
from unmask.commands import pretrain
from unmask.data import Digits, Folder
from unmask.data.labelled import open_labelled
from unmask.evaluation.features import features
from unmask.evaluation.frozen import evaluate

CPU = torch.device("cpu")


def scores(model: Model, data: Digits | Folder) -> None:
    """Accuracy of both protocols, before and after pretraining; labels are used here alone."""
    labelled = open_labelled(data, seed=0)
    size, classes = model.spec.image_size, labelled.train.annotations
    untrained = model.spec.build_encoder().eval()
    print(f"{len(labelled.train)} images to learn from; {labelled.split}")
    for name, encoder in {"untrained": untrained, "pretrained": model.encoder}.items():
        train, test = (
            features(encoder, part, size, model.spec.statistics, CPU)
            for part in (labelled.train, labelled.test)
        )
        for score in evaluate(train, test, "knn", classes) + evaluate(
            train, test, "logistic", classes
        ):
            print(f"{name:10}  {score.protocol:8}  {score.feature:4}  {score.score.value:.1%}")


def digits() -> None:
    """Train for some seconds, then score on digits that were kept from training."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(__file__).with_name("own_recipe.py")
        run = f"{folder}/run"
        pretrain.main(["digits", "--recipe", f"{recipe}:RECIPE", "--out", run, "--threads", "1"])
        scores(unmask.load(run), Digits())


if __name__ == "__main__":
    if len(sys.argv) == 3:
        scores(unmask.load(sys.argv[1]), Folder(path=sys.argv[2]))
    else:
        digits()
