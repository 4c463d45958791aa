"""Segments with a nearest-neighbor upsampling head, an exercise of fastai's book, and with a U-Net beside it.

Both stand on the same encoder and train for as many epochs, on the composed shapes of `composed_shapes.py`. What the
U-Net has more are the encoder's finer maps, which edges and thin curves need.
"""

import argparse
from pathlib import Path

import lightning as L
from composed_shapes import CLASSES, write
from solar_cells import ENCODER, prepare_weights
from torchmetrics.classification import MulticlassJaccardIndex

import lightning_heads as lh

FOLDER = Path("demo/dense_head")


def main() -> None:
    """Writes the data set, trains both models on it and prints the mean IoU of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=300, help="training images")
    parser.add_argument("--valid", type=int, default=100, help="validation images")
    parser.add_argument("--size", type=int, default=96, help="side of an image in pixels")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and of the order")
    options = parser.parse_args()

    write(FOLDER, "train", options.train, options.size)
    write(FOLDER, "valid", options.valid, options.size)
    prepare_weights(FOLDER)
    L.seed_everything(options.seed, verbose=False)
    data = lh.MaskFolderData(FOLDER, codes=CLASSES, image_size=options.size, batch_size=8, num_workers=0)
    weights, classes = FOLDER / f"{ENCODER}.safetensors", len(CLASSES)
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
