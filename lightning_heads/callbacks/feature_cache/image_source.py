"""The single images that a loader's samples are made of."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ...data.features.dataset import CacheableDataset, collate_with_rest, dataset_of, single_images
from ...data.loading.seeded_loader import SeededLoader, seeded_rows

_READING = ("num_workers", "worker_init_fn", "multiprocessing_context", "prefetch_factor", "timeout")


@dataclass(frozen=True)
class ImageSource:
    """The single images behind a loader, and how to go through them."""

    dataset: Dataset[Any]
    batch_size: int
    seed: int
    settings: dict[str, Any] = field(default_factory=dict)  # of the loader that reads them

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def batches(self, rows: Tensor, views: Tensor | None = None) -> Iterator[tuple[Tensor, list[tuple[Any, ...]]]]:
        """Reads the images of some rows, each as changed in a view, the first by default, with what follows each.

        Batches are cut so that consecutive views of an image, all of them, are in one batch and read by one worker.
        """
        views = torch.zeros_like(rows) if views is None else views
        together = int(views.max()) + 1 if len(views) else 1
        return iter(
            seeded_rows(
                self.dataset,
                rows.tolist(),
                [hash((self.seed, view)) % 2**62 for view in views.tolist()],
                max(self.batch_size // together, 1) * together,
                collate_fn=collate_with_rest,
                **self.settings,
            )
        )

    def key(self) -> object:
        """Returns what determines the images.

        Raises:
            ValueError: If that is not known without reading them.
        """
        if not isinstance(self.dataset, CacheableDataset):
            raise ValueError(
                "Expected data sets with `image_key` and `extras`, as the data modules here make, for features "
                f"to be kept in `folder`, but got {type(self.dataset).__name__}; without a folder they last for the run"
            )
        return type(self.dataset), self.dataset.image_key()


def image_source(task: Any, loader: DataLoader[Any], is_kept: bool) -> ImageSource:
    """Returns the single images behind a loader.

    Args:
        task: The task that is fitted.
        loader: The loader.
        is_kept: Whether features are to outlive the run. Augmented views then do not depend on its seed.

    Raises:
        ValueError: If the samples of a task for pairs are not `PairedImages`.
    """
    dataset = dataset_of(loader)
    images = single_images(dataset)
    if images is dataset and getattr(task, "num_inputs", 1) > 1:
        raise ValueError(
            f"Expected loaders of `PairedImages`, for the images of pairs to be cached, but got "
            f"{type(dataset).__name__}"
        )
    seed = loader.sampler.seed if isinstance(loader, SeededLoader) else torch.initial_seed()
    settings = {name: getattr(loader, name) for name in _READING}
    return ImageSource(images, loader.batch_size or 64, 0 if is_kept else seed, settings)
