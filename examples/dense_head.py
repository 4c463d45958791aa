"""Compares a segmentation head with nearest-neighbor upsampling, an exercise of fastai's book, with a U-Net.

Both have the same encoder and train for the same number of epochs on the data set of `composed_shapes.py`. The U-Net
also reads the encoder's finer feature maps, which edges and thin curves need.
"""

from pathlib import Path

import lightning as L
from common import ENCODER
from composed_shapes import CLASSES, options_parser, prepare
from torchmetrics.classification import MulticlassJaccardIndex

import lightning_heads as lh

FOLDER = Path("demo/dense_head")


def main() -> None:
    """Writes the data set, trains both models on it and prints the mean IoU of each."""
    options = options_parser(__doc__, train=300, valid=100, size=96, epochs=10).parse_args()
    data, weights = prepare(FOLDER, options)
    classes = len(CLASSES)
    models = {
        "nearest-neighbor head": lh.DenseModel(ENCODER, classes, weights=weights, upsample="nearest"),
        "U-Net": lh.DynamicUnet(ENCODER, classes, weights=weights),
    }
    scores = {}
    for name, model in models.items():
        L.seed_everything(options.seed, verbose=False)
        criterion = lh.CrossEntropyLoss(ignore_index=data.ignore_index)
        iou = MulticlassJaccardIndex(classes, ignore_index=data.ignore_index)
        task = lh.TransferModule(model, criterion, {"iou": iou}, lr=2e-3)
        trainer = L.Trainer(
            max_epochs=options.epochs,
            callbacks=[lh.OneCycle()],
            default_root_dir=FOLDER,
            enable_checkpointing=False,
            logger=False,
            devices=1,
        )
        trainer.fit(task, data)
        scores[name] = trainer.validate(task, data, verbose=False)[0]["val_iou"]
    for name, score in scores.items():
        print(f"{name:22} validation mIoU {score:.3f}")


if __name__ == "__main__":
    main()
