"""A detector as a fine-tuning job: its JSON, its score on pictures of any size, and its encoder in weight files."""

from dataclasses import replace

import pytest
import torch
from reference import problems
from reference.sources import Annotated

from unmask.annotations import ObjectLabels, Objects
from unmask.contracts import Size
from unmask.data.labelled import Labelled
from unmask.data.scaled_views import FittedImage, ScaleJitter
from unmask.data.statistics import IMAGENET
from unmask.errors import ResourceError
from unmask.recipes.detect import DETECT_MINI
from unmask.runs.finetune import Finetune, Tuned, images_for
from unmask.spec import from_json, to_json
from unmask.tasks import Detect, average_precision
from unmask.tasks.detection_scores import DetectionScore
from unmask.tasks.detections import Detections
from unmask.training.hardware import Hardware

KIND = ObjectLabels(names=("left", "right"), masks=True)
RECIPE = replace(
    DETECT_MINI,
    encoder=replace(DETECT_MINI.encoder, patch_size=8, embed_dim=24, depth=2),
    task=Detect(window=None, channels=8, sampled=16),
    image_size=Size(32, 48),
)
JOB = Finetune(recipe=RECIPE, annotations=KIND, init=None)
HARDWARE = Hardware(device="cpu", precision="float32", workers=0, threads=1, micro_batch=2)


def source() -> Annotated:
    """Pictures of three sizes with an object each, one without any, and one with a crowd."""
    sizes = [(32, 48), (60, 40), (20, 100), (33, 33), (64, 96)]
    pictures, known = [], []
    for number, (height, width) in enumerate(sizes):
        pictures.append(
            torch.randint(256, (3, height, width), generator=problems.random(number)).byte()
        )
        masks = torch.zeros(int(number != 3), height, width, dtype=torch.bool)
        masks[:, 3:17, 5:25] = True
        boxes = torch.tensor([[5.0, 3, 25, 17]] * len(masks)).reshape(-1, 4)
        classes = torch.full((len(masks),), number % 2)
        known.append(
            Objects(boxes, classes, masks, torch.tensor([number == 4] * len(masks)).bool())
        )
    return Annotated(pictures, KIND, known)


def tuned() -> Tuned:
    torch.manual_seed(0)
    encoder = RECIPE.encoder.build(RECIPE.image_size, 3, IMAGENET.tensors())
    return Tuned(RECIPE.task.build(encoder, KIND), JOB, IMAGENET)


def test_a_job_returns_from_json() -> None:
    assert from_json(Finetune, to_json(JOB)) == JOB
    assert isinstance(RECIPE.views, ScaleJitter)
    assert RECIPE.test_views == FittedImage()


def test_results_are_in_the_frame_of_each_picture() -> None:
    pytest.importorskip("faster_coco_eval")
    pictures, one = source(), tuned()
    found = [outputs for outputs, *_ in one.outputs(pictures, HARDWARE, [])]
    flat: list[Detections] = [detections for batch in found for detections in batch]
    for detections, picture in zip(flat, pictures.images, strict=True):
        height, width = picture.shape[1:]
        assert detections.masks.shape == (len(detections.boxes), height, width)
        assert bool((detections.boxes <= torch.tensor([width, height] * 2)).all())
    assert any(len(detections.boxes) for detections in flat)
    outcome = one.score(pictures, HARDWARE)
    expected = RECIPE.task.scoring(KIND)
    expected.add(flat, tuple(pictures.known))
    assert outcome.score == expected.result()
    assert isinstance(outcome.score, DetectionScore)
    assert outcome.score.images == 5
    assert outcome.score.objects == 3
    assert outcome.result["mask"].keys() == {"ap", "ap50", "ap75", "small", "medium", "large"}
    # the same pictures annotated by what was found have a perfect score
    perfect = [Objects(d.boxes, d.classes, d.masks) for d in flat]
    whole = RECIPE.task.scoring(KIND)
    whole.add(flat, tuple(perfect))
    assert whole.result().box.ap == pytest.approx(1.0)


def test_the_encoder_has_the_names_of_weight_files() -> None:
    """So a detection run is a source of weights like any other; relative positions are beside the encoder."""
    module = tuned().module
    names = module.state_dict()
    encoder = {n.removeprefix("encoder."): t for n, t in names.items() if n.startswith("encoder.")}
    RECIPE.encoder.build(RECIPE.image_size, 3, IMAGENET.tensors()).load_state_dict(encoder)
    assert {n.partition(".")[0] for n in names} == {
        "encoder",
        "windows",
        "pyramid",
        "proposals",
        "heads",
    }


def test_a_missing_package_is_noticed_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    labelled = Labelled(source(), source(), "")
    assert images_for(RECIPE, labelled, 0).held_out is None
    monkeypatch.setattr(average_precision, "find_spec", lambda name: None)
    with pytest.raises(ResourceError, match="needs faster-coco-eval"):
        images_for(RECIPE, labelled, 0)
