"""Subcommands of the command line: `embed` and `nearest`."""

from pathlib import Path
from typing import Literal

from ..data.embedding_index import EmbeddingIndex
from ..data.images.datamodule import Resize
from ..search.embedding import embed
from ..search.look_alikes import draw_look_alikes, look_alikes
from ..utils.files import save_picture


def embed_command(
    folder: Path,
    output: Path,
    encoder: str | None = None,
    weights: Path | None = None,
    ckpt: Path | None = None,
    image_size: int | tuple[int, int] = 224,
    resize: Resize = "crop",
    channels: int | None = None,
    batch_size: int = 64,
    num_workers: int | None = None,
    device: str | None = None,
    on_error: Literal["raise", "skip"] = "raise",
) -> None:
    """Embeds every image below a folder into an index file.

    Args:
        folder: The folder, searched recursively.
        output: The file to write, such as photos.safetensors.
        encoder: An architecture's name, for its pretrained encoder.
        weights: A local file with its weights, in place of a download.
        ckpt: A checkpoint of a task, in place of an architecture.
        image_size: Height and width that images are brought to, in pixels.
        resize: How they are brought to it.
        channels: 1 to read images as grayscale, 3 as RGB, 4 with transparency; by default as the encoder takes them.
        batch_size: Images a batch.
        num_workers: Worker processes that read; by default one a processor, at most eight.
        device: Where to compute; by default on the accelerator if there is one.
        on_error: Whether an image that cannot be read stops it, or is reported and left out.
    """
    model = encoder if ckpt is None else ckpt
    if model is None or None not in (encoder, ckpt):
        raise ValueError(f"Expected either `encoder` or `ckpt`, but got {'neither' if model is None else 'both'}")
    index = embed(
        model,
        folder,
        weights=weights,
        image_size=image_size,
        resize=resize,
        channels=channels,
        batch_size=batch_size,
        num_workers=num_workers,
        device=device,
        on_error=on_error,
    )
    index.save(output)
    print(f"Wrote {output.resolve()}: {len(index)} images, {index.embeddings.shape[1]} numbers each")


def nearest_command(
    index: Path, image: Path, k: int | None = None, output: Path | None = None, device: str | None = None
) -> None:
    """Prints the images of an index that look most like another, and draws them.

    Args:
        index: A file that `embed` wrote.
        image: An image, or a folder of images, searched recursively.
        k: How many, from 1 to the number of images in the index; by default 9, or all of fewer.
        output: A png file to draw them to, a row for each image; by default none is written.
        device: Where to compute; by default on the accelerator if there is one.
    """
    found = look_alikes(EmbeddingIndex.load(index), image, k, device=device)
    for each in found:
        print(each.query)
        for path, score in zip(each.paths, each.scores, strict=True):
            print(f"  {score:.3f}  {path}")
    if output is not None:
        save_picture(draw_look_alikes(found), output)
        print(f"Wrote {output.resolve()}")
