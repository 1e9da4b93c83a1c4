"""Classification with a linear head on the mean of the patch tokens; encoder and head are trained."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.contracts import Batch, Loss
from unmask.encoders.vit import VisionTransformer
from unmask.errors import SettingsError


@dataclass(frozen=True, kw_only=True)
class Classify:
    """Cross-entropy on class labels."""

    label_smoothing: float = 0.0
    """Share of the target spread over all classes."""

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise SettingsError(f"label_smoothing must lie in [0, 1), got {self.label_smoothing}")

    def build(self, encoder: VisionTransformer, classes: int) -> "Classifier":
        """The module around an encoder, which is trained with it."""
        return Classifier(self, encoder, classes)


class Classifier(nn.Module):
    """See `Classify`. The head starts near zero, as in MAE's fine-tuning (appendix A.1)."""

    def __init__(self, spec: Classify, encoder: VisionTransformer, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.label_smoothing = spec.label_smoothing
        self.head = nn.Linear(encoder.embed_dim, classes)
        nn.init.trunc_normal_(self.head.weight, std=2e-5)
        nn.init.zeros_(self.head.bias)

    def logits(self, images: Shaped[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        """Scores of the classes."""
        return self.head(self.encoder.encode(images).patches.mean(1))

    def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
        """Mean cross-entropy; nothing is drawn."""
        logits = self.logits(batch.images)
        loss = F.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)
        return Loss(loss, {})
