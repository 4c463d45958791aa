"""Creates matplotlib figures; matplotlib is optional."""

import unicodedata
from typing import TYPE_CHECKING

from ..utils.files import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> "Figure":
    """Returns an empty figure, with its width and height in inches.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # imported where used: it is optional and slow
    except ImportError as error:
        raise ImportError("Drawing needs matplotlib: pip install 'lightning-heads[plots]'") from error
    return Figure(figsize=(width, height), layout="constrained")


def label(text: str) -> str:
    """Returns a text that matplotlib draws as it is: without formulas between dollar signs, or lone surrogates."""
    return unicodedata.normalize("NFC", printable(text)).replace("$", r"\$")
