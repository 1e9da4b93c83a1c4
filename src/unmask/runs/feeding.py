"""Choose the feed of a run: loading processes, images held on the GPU, or decoding on the GPU."""

from weakref import WeakKeyDictionary

import torch

from unmask.contracts import ImageSource
from unmask.data.cpu_feed import CpuFeed
from unmask.data.gpu_crops import GpuCrops, OnDevice, load_on_device
from unmask.data.gpu_decode import GpuDecode
from unmask.data.loader import CropSize, Feed
from unmask.data.multi_views import AnyPretrainingViews, check_views_carry
from unmask.data.views import AnyViews, RandomCrop
from unmask.training.hardware import Hardware, memory_available

_ROOM = 0.1  # share of free GPU memory for images; more would force a smaller micro-batch

_ON_DEVICE: WeakKeyDictionary[ImageSource, tuple[str, OnDevice | None]] = WeakKeyDictionary()
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
        on_device = _on_device(source, views, device, hardware.workers)
        if on_device is not None:
            return GpuCrops(source, views, size, seed, on_device)
    return CpuFeed(source, views, size, seed)


def _on_device(
    source: ImageSource, views: RandomCrop, device: torch.device, workers: int
) -> OnDevice | None:
    """The source's images on the device, or None if they do not fit there; read once."""
    where, on_device = _ON_DEVICE.get(source, ("", None))
    if where != str(device):
        on_device = load_on_device(
            source, views, device, workers, room=_ROOM * memory_available(device)
        )
        _ON_DEVICE[source] = str(device), on_device
    return on_device
