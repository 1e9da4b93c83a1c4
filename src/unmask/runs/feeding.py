"""Choose the feed of a run: loading processes, images held on the GPU, or decoding on the GPU."""

from weakref import WeakKeyDictionary

import torch

from unmask.contracts import ImageSource
from unmask.data.cpu_feed import CpuFeed
from unmask.data.gpu_crops import GpuCrops, Held, hold
from unmask.data.gpu_decode import GpuDecode
from unmask.data.loader import CropSize, Feed
from unmask.data.multi_views import AnyPretrainingViews, check_views_carry
from unmask.data.views import AnyViews, RandomCrop
from unmask.training.hardware import Hardware, memory_available

_ROOM = 0.1  # share of free GPU memory for images; more would force a smaller micro-batch

_HELD: WeakKeyDictionary[ImageSource, tuple[str, Held | None]] = WeakKeyDictionary()
"""Images of a source on a device (None if they do not fit). Plan, benchmark and training use the same ones, so they are
read once. Kept as long as the source."""


def feed_for(
    source: ImageSource,
    views: AnyPretrainingViews | AnyViews,
    size: CropSize,
    seed: int,
    hardware: Hardware,
) -> Feed:
    """The feed of a run: decoding on the GPU if requested; images held on the GPU if all fit; else loading processes.

    Raises:
        SettingsError: if the annotations cannot follow the views, or cannot with decoding on the GPU.
    """
    check_views_carry(views, source.annotations)
    device = torch.device(hardware.device)
    if hardware.decode == "gpu":
        assert isinstance(views, RandomCrop), "checked by check_decoding"
        return GpuDecode(source, views, size, seed)
    if device.type == "cuda" and isinstance(views, RandomCrop):
        held = _held(source, views, device, hardware.workers)
        if held is not None:
            return GpuCrops(source, views, size, seed, held)
    return CpuFeed(source, views, size, seed)


def _held(
    source: ImageSource, views: RandomCrop, device: torch.device, workers: int
) -> Held | None:
    """The source's images on the device, or None if they do not fit there; read once."""
    where, held = _HELD.get(source, ("", None))
    if where != str(device):
        held = hold(source, views, device, workers, room=_ROOM * memory_available(device))
        _HELD[source] = str(device), held
    return held
