"""The data set of image files."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lightning_heads.data.images.dataset import ImageDataset
from lightning_heads.data.images.opening import ImageReadError
from lightning_heads.data.transforms.resize import ResizeTo


def test_a_changed_or_deleted_file_is_read_again(make_image: Callable[..., Path]) -> None:
    path = make_image("a.png", level=40)
    dataset = ImageDataset([path], None, channels=3, size=ResizeTo((8, 8)))
    before = dataset[0]
    assert torch.equal(dataset[0], before)
    make_image("a.png", level=200)
    assert dataset[0].mean() > before.mean() + 0.3
    path.unlink()
    with pytest.raises(ImageReadError, match="there is no such file"):
        dataset[0]


def test_augmentation_in_place_does_not_change_the_stored_image(make_image: Callable[..., Path]) -> None:
    path = make_image("a.png", level=40)
    dataset = ImageDataset(
        [path], None, channels=3, size=ResizeTo((32, 40), "none"), augment=lambda image: image.zero_()
    )
    assert dataset[0].sum() == 0
    dataset.augment = None
    assert dataset[0].mean() > 0.1
