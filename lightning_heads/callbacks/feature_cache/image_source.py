"""Reads the single images that the samples of a loader consist of."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ...data.features.dataset import CacheableDataset, collate_with_rest, dataset_of, image_dataset
from ...data.loading.seeded_loader import SeededLoader, seeded_rows

_LOADER_SETTINGS = ("num_workers", "worker_init_fn", "multiprocessing_context", "prefetch_factor", "timeout")


@dataclass(frozen=True)
class ImageSource:
    """The single images behind a loader's samples, and the settings to read them with."""

    dataset: Dataset[Any]
    batch_size: int
    seed: int
    settings: dict[str, Any] = field(default_factory=dict)  # keyword arguments of the loader that reads the images

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def batches(self, rows: Tensor, views: Tensor | None = None) -> Iterator[tuple[Tensor, list[tuple[Any, ...]]]]:
        """Yields batches of images `(b, c, h, w)`, each with a list of what follows the image in its sample.

        The batch size is a multiple of the number of views, so that all views of an image, if they are consecutive,
        are in one batch and are read by one worker.

        Args:
            rows: Indices of the images, `(n,)`.
            views: The augmented view of each image, `(n,)`, which seeds its augmentation; 0 by default.
        """
        views = torch.zeros_like(rows) if views is None else views
        num_views = int(views.max()) + 1 if len(views) else 1
        return iter(
            seeded_rows(
                self.dataset,
                rows.tolist(),
                [hash((self.seed, view)) % 2**62 for view in views.tolist()],
                max(self.batch_size // num_views, 1) * num_views,
                collate_fn=collate_with_rest,
                **self.settings,
            )
        )

    def key(self) -> object:
        """Returns a key that is equal for equal images.

        Raises:
            ValueError: If the data set has no such key (`CacheableDataset`).
        """
        if not isinstance(self.dataset, CacheableDataset):
            raise ValueError(
                "Expected data sets with `image_key` and `extras`, such as those of this package's data modules, for "
                f"features to be saved in `folder`, but got {type(self.dataset).__name__}; without a folder, features "
                "of any map-style data set are cached, for one run"
            )
        return type(self.dataset), self.dataset.image_key()


def image_source(task: Any, loader: DataLoader[Any], is_kept: bool) -> ImageSource:
    """Returns the single images behind a loader's samples.

    Args:
        task: The task that is fitted.
        loader: The loader.
        is_kept: Whether features outlive the run. Augmented views then do not depend on the seed of the run.

    Raises:
        ValueError: If the samples of a task for pairs are not `PairedImages`.
    """
    dataset = dataset_of(loader)
    images = image_dataset(dataset)
    if images is dataset and getattr(task, "num_inputs", 1) > 1:
        raise ValueError(
            f"Expected loaders of `PairedImages`, for the images of pairs to be cached, but got "
            f"{type(dataset).__name__}"
        )
    seed = loader.sampler.seed if isinstance(loader, SeededLoader) else torch.initial_seed()
    settings = {name: getattr(loader, name) for name in _LOADER_SETTINGS}
    return ImageSource(images, loader.batch_size or 64, 0 if is_kept else seed, settings)
