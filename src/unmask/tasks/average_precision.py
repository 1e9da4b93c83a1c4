"""Average precision of detected objects, as COCO defines it: for boxes, and for masks where they are known.

The mean of the precision at 101 recalls, over the overlaps 0.50, 0.55 to 0.95 and over classes, with at most 100 detections
in a picture. Crowds count neither for nor against. Computed by faster-coco-eval, whose results are those of pycocotools.
"""

import hashlib
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from unmask.annotations import Annotations, Objects
from unmask.cutouts import Cutouts
from unmask.errors import ResourceError, with_extra
from unmask.tasks.boxes import areas
from unmask.tasks.detection_scores import ClassPrecision, DetectionScore, Precision
from unmask.tasks.detections import Detections
from unmask.tasks.run_lengths import run_lengths

_AT_50, _AT_75 = 0, 5  # places of the overlaps 0.5 and 0.75
_RANGES = ("all", "small", "medium", "large")  # areas up to 32^2 pixels, up to 96^2, and above

Part = Literal["bbox", "segm"]


class _Picture(NamedTuple):
    """What a picture holds and what was found in it, in COCO's form: boxes are (left, top, width, height)."""

    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]
    masks: list[Any] | None
    found_boxes: NDArray[np.float64]
    found_classes: NDArray[np.int64]
    scores: NDArray[np.float64]
    found_masks: list[Any] | None
    found_areas: list[float]
    """Pixels of the masks that were found; empty without them."""
    size: tuple[int, int]
    """Height and width, which only masks need; 0 without them."""

    def key(self) -> bytes:
        """A hash of the numbers, by which pictures are ordered."""
        state = hashlib.sha256()
        for value in (self.scores, self.found_classes, self.found_boxes, self.classes, self.boxes):
            state.update(value.tobytes())
        return state.digest()


class Precisions:
    """Collects detections and objects, because average precision is not a sum over images.

    Detections with equal scores are ranked in an order of the pictures that follows from what is in them, so that the result
    does not depend on how pictures were shared out.

    Raises:
        ResourceError: if faster-coco-eval is not installed.
    """

    def __init__(self, names: Sequence[str], masks: bool) -> None:
        if find_spec("faster_coco_eval") is None:
            raise ResourceError(
                "the score of a detector, average precision, needs faster-coco-eval; install it with "
                + with_extra("dense")
            )
        self.names, self.masks = tuple(names), masks
        self.pictures: list[_Picture] = []

    def add(self, outputs: Any, truth: Annotations) -> None:
        """Add what was found in some pictures, and their objects, both in the frame of the original pictures."""
        assert isinstance(truth, tuple)
        for found, objects in zip(outputs, truth, strict=True):
            self.pictures.append(_picture(found, objects, self.masks))

    def merged(self, parts: Sequence["Precisions"]) -> "Precisions":
        """One scoring with the pictures of several."""
        whole = Precisions(self.names, self.masks)
        for part in parts:
            whole.pictures += part.pictures
        return whole

    def result(self) -> DetectionScore:
        """The average precisions of all pictures."""
        pictures = sorted(self.pictures, key=_Picture.key)
        boxes = _precisions(pictures, self.names, "bbox")
        masks = _precisions(pictures, self.names, "segm") if self.masks else None
        counts = [
            sum(int(((one.classes == number) & ~one.crowd).sum()) for one in pictures)
            for number in range(len(self.names))
        ]
        classes = tuple(
            ClassPrecision(
                name=name,
                objects=counts[number],
                box=_summary(boxes[:, :, number]),
                mask=None if masks is None else _summary(masks[:, :, number]),
            )
            for number, name in enumerate(self.names)
        )
        return DetectionScore(
            box=_summary(boxes),
            mask=None if masks is None else _summary(masks),
            images=len(pictures),
            objects=sum(counts),
            classes=classes,
        )


def _picture(found: Detections, objects: Objects, masks: bool) -> _Picture:
    boxes = objects.boxes.reshape(-1, 4).double()
    known_runs, found_runs = compressed(objects.masks), compressed(found.masks if masks else None)
    size = areas(boxes).numpy() if objects.masks is None else _areas(known_runs)
    crowd = torch.zeros(len(boxes)).bool() if objects.crowd is None else objects.crowd
    return _Picture(
        _coco_boxes(boxes),
        objects.classes.numpy(),
        crowd.numpy(),
        size,
        known_runs if masks else None,
        _coco_boxes(found.boxes.double()),
        found.classes.numpy(),
        found.scores.double().numpy(),
        found_runs if masks else None,
        _areas(found_runs).tolist(),
        (0, 0) if found.masks is None else (found.masks.shape[1], found.masks.shape[2]),
    )


def _coco_boxes(boxes: Tensor) -> NDArray[np.float64]:
    return torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).numpy()


def compressed(masks: Bool[Tensor, "n h w"] | Cutouts | None) -> list[Any]:
    """The run lengths as COCO's strings; none for no masks."""
    from faster_coco_eval.core import mask as coco_masks

    if masks is None or len(masks) == 0:
        return []
    return list(coco_masks.frPyObjects(run_lengths(masks), *masks.shape[1:]))


def _areas(runs: list[Any]) -> NDArray[np.float64]:
    """The number of pixels of each compressed mask."""
    from faster_coco_eval.core import mask as coco_masks

    return np.asarray(coco_masks.area(runs), dtype=np.float64) if runs else np.zeros(0)


def _precisions(
    pictures: Sequence[_Picture], names: Sequence[str], part: Part
) -> NDArray[np.float64]:
    """The precision at each overlap, recall, class and range of areas; -1 where there are no objects."""
    from faster_coco_eval import COCO, COCOeval_faster

    truth, results = COCO(_dataset(pictures, names)), _results(pictures, part)
    found = COCO(
        {
            "images": truth.dataset["images"],
            "annotations": results,
            "categories": truth.dataset["categories"],
        }
    )
    evaluation = COCOeval_faster(truth, found, part, rle_iou_max_workers=1)
    evaluation.evaluate()
    evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"])[..., -1]  # with at most 100 detections


def _dataset(pictures: Sequence[_Picture], names: Sequence[str]) -> dict[str, Any]:
    """Images and objects in COCO's JSON form."""
    annotations: list[dict[str, Any]] = []
    for image, picture in enumerate(pictures):
        for number, box in enumerate(picture.boxes.tolist()):
            annotation: dict[str, Any] = {
                "id": len(annotations) + 1,
                "image_id": image,
                "category_id": int(picture.classes[number]),
                "bbox": box,
                "area": float(picture.areas[number]),
                "iscrowd": int(picture.crowd[number]),
            }
            if picture.masks is not None:
                annotation["segmentation"] = picture.masks[number]
            annotations.append(annotation)
    return {
        "images": [
            {"id": image, "height": one.size[0], "width": one.size[1]}
            for image, one in enumerate(pictures)
        ],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in enumerate(names)],
    }


def _results(pictures: Sequence[_Picture], part: Part) -> list[dict[str, Any]]:
    """Detections in COCO's form, with boxes or with masks, and with what the package's `loadRes` adds, which takes longer."""
    results: list[dict[str, Any]] = []
    for image, picture in enumerate(pictures):
        boxes = picture.found_boxes.tolist()
        rows = zip(picture.found_classes.tolist(), picture.scores.tolist(), boxes, strict=True)
        for number, (category, score, box) in enumerate(rows):
            result: dict[str, Any] = {
                "id": len(results) + 1,
                "image_id": image,
                "category_id": category,
                "score": score,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            if part == "segm":
                assert picture.found_masks is not None
                result["segmentation"] = picture.found_masks[number]
                result["area"] = picture.found_areas[number]
            results.append(result)
    return results


def _summary(precisions: NDArray[np.float64]) -> Precision:
    """Means over what is defined; the axes are overlaps, recalls, perhaps classes, and ranges of areas."""

    def mean(part: NDArray[np.float64]) -> float | None:
        defined = part[part > -1]
        return float(defined.mean()) if defined.size else None

    everything, small, medium, large = (precisions[..., n] for n in range(len(_RANGES)))
    return Precision(
        ap=mean(everything),
        ap50=mean(everything[_AT_50]),
        ap75=mean(everything[_AT_75]),
        small=mean(small),
        medium=mean(medium),
        large=mean(large),
    )
