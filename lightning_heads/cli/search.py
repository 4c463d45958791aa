"""Subcommands of the command line: `embed` and `nearest`."""

from pathlib import Path
from typing import Literal

from ..data.embedding_index import EmbeddingIndex
from ..data.images.datamodule import Resize
from ..search.embedding import embed
from ..search.look_alikes import draw_look_alikes, look_alikes
from ..utils.files import printable, save_picture


def embed_command(
    folder: Path,
    output: Path,
    encoder: str | None = None,
    weights: Path | None = None,
    ckpt: Path | None = None,
    image_size: int | tuple[int, int] = 224,
    resize: Resize = "crop",
    channels: int | None = None,
    value_range: tuple[float, float] | None = None,
    max_pixels: int | None = None,
    batch_size: int = 64,
    num_workers: int | None = None,
    device: str | None = None,
    on_error: Literal["raise", "skip"] = "raise",
) -> None:
    """Embeds every image below a folder into an index file.

    Args:
        folder: Folder of images, searched recursively.
        output: Index file to write, such as photos.safetensors.
        encoder: Name of an architecture, whose pretrained encoder computes the embeddings.
        weights: Local file with its weights, instead of a download.
        ckpt: Checkpoint of a task, instead of an architecture.
        image_size: Height and width that images are resized to, in pixels.
        resize: How images are resized: crop, squish, pad or none.
        channels: 1 to read images as grayscale, 3 as RGB, 4 as RGBA; by default as many as the encoder takes.
        value_range: Stored pixel values that are black and white, the same for every file; by default the range of each
            file's data type.
        max_pixels: Largest number of pixels of an image file; by default Pillow's limit, 178,956,970.
        batch_size: Images per batch.
        num_workers: Worker processes that read images; by default one per CPU, at most eight.
        device: Device to compute on; by default the accelerator if there is one.
        on_error: Whether an image that cannot be read raises an error, or is reported and skipped.
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
        value_range=value_range,
        max_pixels=max_pixels,
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
    """Prints the images of an index that are most similar to query images, and draws them.

    Args:
        index: Index file that `embed` wrote.
        image: Query image, or a folder of query images, searched recursively.
        k: Number of similar images, from 1 to the number of images in the index; by default 9, or all if fewer.
        output: File name of a png to draw them to, one row per query; by default none is written.
        device: Device to compute on; by default the accelerator if there is one.
    """
    found = look_alikes(EmbeddingIndex.load(index), image, k, device=device)
    for each in found:
        print(printable(each.query))
        for path, score in zip(each.paths, each.scores, strict=True):
            print(f"  {score:.3f}  {printable(path)}")
    if output is not None:
        save_picture(draw_look_alikes(found), output)
        print(f"Wrote {output.resolve()}")
