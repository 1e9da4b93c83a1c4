"""A tiny member of every kind of every union, and what a recipe made of them trains on."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from runs import tiny

from unmask.annotations import DENSE
from unmask.channels import Statistics
from unmask.contracts import Batch, Size
from unmask.data import (
    AnySource,
    Coco,
    Digits,
    Folder,
    GroundMap,
    Held,
    InstanceMaps,
    LabelsFile,
    Maps,
    Parquet,
    Shards,
    Tiff,
    Voc,
    Yolo,
)
from unmask.data.geometry import Placing
from unmask.data.multi_views import AnyPretrainingViews, MultiCrop, TwoCrops
from unmask.data.place_views import TwoLooks
from unmask.data.scaled_views import FittedImage, ScaleJitter, WholeImage
from unmask.data.sizes import AnySizes, RisingSize, SteadySize
from unmask.data.views import (
    AnyViews,
    AugmentedCrop,
    CenterCrop,
    FixedCrop,
    JitteredCrop,
    MarginCrop,
    RandomCrop,
    SquashedImage,
)
from unmask.encoders import AnyEncoder, ViT
from unmask.encoders.vit import AnyBlocks, BeitBlocks, PlainBlocks, VisionTransformer
from unmask.errors import SettingsError
from unmask.masking import (
    AnyMasking,
    BlockMasking,
    GridMasking,
    InverseBlockMasking,
    NoiseMasking,
    PartitionMasking,
    RandomMasking,
    SquareMasking,
)
from unmask.objectives import AIM, DINO, MAE, AnyObjective, Latent, MoCo3, Place
from unmask.objectives.decoders import (
    AnyDecoder,
    CrossAttentionDecoder,
    LinearDecoder,
    SelfAttentionDecoder,
)
from unmask.objectives.mae import AnyEncoding, Replaced, Visible
from unmask.spec import kinds
from unmask.targets import (
    AbsolutePixels,
    AnyTarget,
    DalleCodes,
    Hog,
    KMeansTokens,
    NormalizedPixels,
    Pixels,
    PrincipalComponents,
    ScalarTokenizer,
    TokenizerCodes,
)
from unmask.tasks import (
    AnyHead,
    AnyMapHead,
    AnyTask,
    Classify,
    Detect,
    MultiLabel,
    Segment,
)
from unmask.tasks.dpt import DPT
from unmask.tasks.heads import AttentiveHead, ClassTokenHead, LinearHead, MeanHead, TokenProbe
from unmask.tasks.map_layers import AnyNorms, BatchNorms, LayerNorms, NoNorms
from unmask.tasks.segment_heads import LinearMap
from unmask.tasks.upernet import UperNet
from unmask.training.optimizers import (
    AdamW,
    AnyClipping,
    AnyOptimizer,
    ClipEach,
    ClipTogether,
    Lars,
    LayerwiseAdamW,
    Muon,
    NoClipping,
)
from unmask.traits import Comparing, Hiding, Masked, Predicting

UNIONS = {
    "masking": AnyMasking,
    "target": AnyTarget,
    "encoder": AnyEncoder,
    "blocks": AnyBlocks,
    "encoding": AnyEncoding,
    "decoder": AnyDecoder,
    "objective": AnyObjective,
    "task": AnyTask,
    "head": AnyHead,
    "map head": AnyMapHead,
    "norms": AnyNorms,
    "source": AnySource,
    "views": AnyPretrainingViews,
    "task views": AnyViews,
    "sizes": AnySizes,
    "optimizer": AnyOptimizer,
    "clipping": AnyClipping,
}

MEMBERS: dict[str, dict[str, Any]] = {
    "masking": {
        "random": RandomMasking(ratio=0.75),
        "block": BlockMasking(ratio=0.4),
        "grid": GridMasking(stride=2),
        "inverse-block": InverseBlockMasking(ratio=0.75, side=2),
        "noise": NoiseMasking(ratio=0.6),
        "partition": PartitionMasking(masks=2, ratio=0.6),
        "squares": SquareMasking(),
    },
    "target": {
        "pixels": Pixels(),
        "absolute-pixels": AbsolutePixels(),
        "normalized-pixels": NormalizedPixels(),
        "pca": PrincipalComponents(share=0.5),
        "hog": Hog(),
        "kmeans-tokens": KMeansTokens(codes=8),
        "tokenizer": TokenizerCodes(
            path="tokenizer", tokenizer=ScalarTokenizer(codes=16, width=8, depth=1)
        ),
        "dalle": DalleCodes(path="encoder.pt", codes=16, width=4, depth=1),
    },
    "encoder": {"vit": ViT(patch_size=2, embed_dim=8, depth=2, num_heads=2, class_tokens=2)},
    "blocks": {"plain": PlainBlocks(), "beit": BeitBlocks(layer_scale=0.5)},
    "encoding": {"visible": Visible(), "replaced": Replaced()},
    "decoder": {
        "self-attention": SelfAttentionDecoder(embed_dim=8, depth=2, num_heads=2),
        "linear": LinearDecoder(),
        "cross-attention": CrossAttentionDecoder(embed_dim=8, depth=3, num_heads=2),
    },
    "objective": {
        "mae": MAE(decoder=SelfAttentionDecoder(embed_dim=8, depth=1, num_heads=2)),
        "aim": AIM(head_dim=8, head_depth=1),
        "latent": Latent(
            masks=2, target_blocks=1, decoder_dim=8, decoder_depth=2, decoder_groups=2
        ),
        "dino": DINO(prototypes=16, hidden_dim=8, bottleneck_dim=4, temperature_epochs=2),
        "moco3": MoCo3(hidden_dim=8, out_dim=4, momentum=0.9),
        "place": Place(memory=9, hardest=3),
    },
    "task": {
        "classify": Classify(label_smoothing=0.1, drop_path=0.2, weight_average=0.5),
        "multi-label": MultiLabel(drop_path=0.2, weight_average=0.5, holds_out=0.2),
        "segment": Segment(drop_path=0.2),
        "detect": Detect(window=3, global_blocks=1, drop_path=0.2, channels=4, sampled=8),
    },
    "head": {
        "mean": MeanHead(),
        "linear": LinearHead(),
        "class-token": ClassTokenHead(),
        "token-probe": TokenProbe(),
        "attentive": AttentiveHead(),
    },
    "map head": {
        "linear": LinearMap(),
        "upernet": UperNet(channels=4),
        "dpt": DPT(channels=4, map_channels=(2, 3, 4, 5), norm=BatchNorms()),
    },
    "norms": {"layer": LayerNorms(), "batch": BatchNorms(), "none": NoNorms()},
    "source": {
        "folder": Folder(path="photos of 2024/à la mer"),
        "digits": Digits(),
        "ground-map": GroundMap(path="map.tif", tile_metres=(60.0, 120.0), tile_overlap=0.75),
        "held": Held(what="CIFAR10", images=50_000, fingerprint="6e1a5e6c1d3d3a10"),
        "shards": Shards(path="train-{000..010}.tar"),
        "parquet": Parquet(path="data/train-*.parquet"),
        "tiff": Tiff(path="scenes", channels=(4, 3, 2), no_data=-9999.0),
        "labels-file": LabelsFile(data=Shards(path="x.tar"), labels="labels.csv"),
        "maps": Maps(path="streets", ignored=(0, 255)),
        "instance-maps": InstanceMaps(path="cells"),
        "coco": Coco(path="annotations/instances_train.json"),
        "yolo": Yolo(path="data.yaml"),
        "voc": Voc(path="VOC2012"),
    },
    "views": {
        "random-crop": RandomCrop(smallest_share=0.3),
        "center-crop": CenterCrop(),
        "margin-crop": MarginCrop(share=0.8),
        "fixed-crop": FixedCrop(share=0.7),
        "jittered-crop": JitteredCrop(hue=0.2),
        "augmented-crop": AugmentedCrop(magnitude=5),
        "multi-crop": MultiCrop(small_count=2, small_size=Size(4, 4)),
        "two-crops": TwoCrops(smallest_share=0.3),
        "two-looks": TwoLooks(shift=0.5),
    },
    "task views": {
        "random-crop": RandomCrop(smallest_share=0.3, too_large="clip"),
        "center-crop": CenterCrop(),
        "margin-crop": MarginCrop(share=0.8),
        "fixed-crop": FixedCrop(share=0.7),
        "jittered-crop": JitteredCrop(hue=0.2),
        "augmented-crop": AugmentedCrop(magnitude=5),
        "squashed-image": SquashedImage(),
        "whole-image": WholeImage(longest_side=12),
        "fitted-image": FittedImage(side="shortest"),
        "scale-jitter": ScaleJitter(least=0.5, side="shortest", photometric=True),
    },
    "sizes": {"steady": SteadySize(), "rising": RisingSize(first=Size(4, 4), stages=2)},
    "optimizer": {
        "adamw": AdamW(weight_decay=0.1),
        "layerwise-adamw": LayerwiseAdamW(layer_decay=0.7),
        "lars": Lars(),
        "muon": Muon(),
    },
    "clipping": {
        "none": NoClipping(),
        "together": ClipTogether(norm=0.1),
        "each": ClipEach(norm=0.1),
    },
}

CHANNELS, CLASSES = 3, 4


def pairs() -> list[tuple[str, str]]:
    """(union, kind) of every member of every union."""
    return [(union, kind) for union, members in MEMBERS.items() for kind in members]


def masked_objectives() -> list[tuple[str, str, str]]:
    """(objective, target, masking) in every combination of the registered kinds."""
    masked = [kind for kind, member in MEMBERS["objective"].items() if isinstance(member, Masked)]
    return list(product(masked, kinds(AnyTarget), kinds(AnyMasking)))


def first_fast(combinations: list[tuple[str, str]]) -> list[Any]:
    """The combinations, all but the first one marked as slow."""
    first, *others = combinations
    return [first, *(pytest.param(*each, marks=pytest.mark.slow) for each in others)]


def some_fast(combinations: list[tuple[str, str, str]]) -> list[Any]:
    """The combinations, with marks that leave every member one fast test at least."""
    targets, maskings = list(kinds(AnyTarget)), list(kinds(AnyMasking))
    period = min(len(targets), len(maskings))

    def is_fast(target: str, masking: str) -> bool:
        return (targets.index(target) - maskings.index(masking)) % period == 0

    slow = pytest.mark.slow
    return [
        each if is_fast(*each[1:]) else pytest.param(*each, marks=slow) for each in combinations
    ]


def latent_objectives() -> list[tuple[str, str]]:
    """(objective, masking) of those that hide patches and rebuild nothing of them, with every kind of masking."""
    objectives = MEMBERS["objective"].items()
    hiding = [k for k, one in objectives if isinstance(one, Hiding) and not isinstance(one, Masked)]
    return list(product(hiding, kinds(AnyMasking)))


def comparing_objectives() -> list[str]:
    """The objectives that compare views."""
    return [kind for kind, member in MEMBERS["objective"].items() if isinstance(member, Comparing)]


def next_patch_objectives() -> list[tuple[str, str]]:
    """(objective, target) of those that guess the next patch, with every kind of target."""
    guessing = [kind for kind, member in MEMBERS["objective"].items() if _next_patch(member)]
    return list(product(guessing, kinds(AnyTarget)))


def _next_patch(member: Any) -> bool:
    return isinstance(member, Predicting) and not isinstance(member, Hiding)


def suited(kind: str) -> dict[str, Any]:
    """Parts of a recipe that some views, or an objective, need beside them."""
    return _SUITED.get(kind, {})


_SUITED: dict[str, dict[str, Any]] = {
    "dino": {"views": MEMBERS["views"]["multi-crop"]},
    "moco3": {"views": MEMBERS["views"]["two-crops"]},
    "multi-crop": {"objective": MEMBERS["objective"]["dino"]},
    "two-crops": {"objective": MEMBERS["objective"]["moco3"]},
    "place": {"views": MEMBERS["views"]["two-looks"]},
    "two-looks": {"objective": MEMBERS["objective"]["place"]},
}


def encodings() -> list[tuple[str, str]]:
    """(encoding, decoder) in every combination that is not refused."""
    return [
        (encoding, decoder)
        for encoding, decoder in product(MEMBERS["encoding"], MEMBERS["decoder"])
        if _go_together(encoding, decoder)
    ]


def _go_together(encoding: str, decoder: str) -> bool:
    try:
        MAE(encoding=MEMBERS["encoding"][encoding], decoder=MEMBERS["decoder"][decoder])
    except SettingsError:
        return False
    return True


def heads_of(task: str) -> dict[str, Any]:
    """The heads of a kind of task; None where it has only its own, which depend on the annotations."""
    spec = MEMBERS["task"][task]
    if not hasattr(spec, "head"):
        return {"boxes": None, "masks": None}
    return MEMBERS["map head" if isinstance(spec, Segment) else "head"]


def of_whole_images() -> dict[str, Any]:
    """The tasks that learn from what is known of whole images; the others are swept in test_dense_through_commands.py."""
    return {kind: one for kind, one in MEMBERS["task"].items() if not issubclass(one.needs, DENSE)}


def placing_views() -> dict[str, Any]:
    """The views of tasks whose geometry class maps and boxes can follow in training."""
    return {kind: one for kind, one in MEMBERS["task views"].items() if isinstance(one, Placing)}


def tiny_encoder(blocks: str = "plain") -> VisionTransformer:
    """An encoder for images of the tiny recipe's size."""
    statistics = Statistics(torch.full((CHANNELS,), 0.5), torch.full((CHANNELS,), 0.25))
    encoder: ViT = replace(MEMBERS["encoder"]["vit"], blocks=MEMBERS["blocks"][blocks])
    return encoder.build(tiny.RECIPE.image_size, CHANNELS, statistics)


def batch_of(step: int, count: int = 4, size: Size = tiny.RECIPE.image_size) -> Batch:
    """Random labelled images, a function of the step."""
    random = torch.Generator().manual_seed(step)
    images = torch.randint(256, (count, CHANNELS, *size), generator=random, dtype=torch.uint8)
    return Batch((images,), torch.arange(count) % CLASSES, torch.arange(count), 0)
