"""Calls that mypy must accept or refuse: `make lint` checks this file, where an ignored error that is none is one."""

from typing import Any

import lightning_heads as lh


class Cropped(lh.ImageFolderData):
    """A subclass with an argument of its own."""

    def __init__(self, root: str, *, margin: int = 4, **kwargs: Any) -> None:
        super().__init__(root, **kwargs)
        self.margin = margin


def calls() -> None:
    lh.ImageFolderData("photos", image_size=128, resize="squish", num_workers=0, images_per_class=2)
    lh.ImageFolderData("photos", image_sise=128)  # type: ignore[call-arg]
    lh.ImageFolderData("photos", image_size="128")  # type: ignore[arg-type]
    lh.MaskFolderData("photos", codes=["sky"], resize="stretch")  # type: ignore[arg-type]
    lh.MaskTableData("photos.csv", codes=["sky"], batch_size=8, images_per_class=2)  # type: ignore[call-arg]
    lh.PairFolderData("photos", same_fraction=0.5, batch_size=32, channels=1)
    lh.PairFolderData("photos", predict_root="new")  # type: ignore[call-arg]
    lh.RestorationData("photos", degradation=lh.Downscale(2), augment=1.5)  # type: ignore[arg-type]
    lh.ImageClassifier("resnet18", 2, ps=[0.1, 0.2], image_size=(64, 96), hypercolumns=True)
    lh.ImageClassifier("resnet18", 2, drop_path="0.1")  # type: ignore[call-arg]
    lh.ImageClassifier("resnet18", 2, drop_path_rate="0.1")  # type: ignore[arg-type]
    lh.ImageSegmenter("resnet18", 2, decoder="fastai", norm="batch")
    lh.ImageSegmenter("resnet18", 2, decoder="heavy")  # type: ignore[arg-type]
    lh.DynamicUnet("resnet18", 2, hypercolumns=True)  # type: ignore[call-arg]
    Cropped("photos", margin=2, image_size=64)
    Cropped("photos", margin="2")  # type: ignore[arg-type]
