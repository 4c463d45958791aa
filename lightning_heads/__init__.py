"""fastai's application architectures as a PyTorch Lightning plugin.

>>> import lightning_heads as lh
>>> task = lh.ImageClassifier("resnet18", num_classes=37, pretrained=False, lr=(1e-5, 1e-3))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .public import *  # noqa: F403
    from .public import __all__ as __all__
else:

    def __getattr__(name: str) -> Any:
        """Imports all public names when one is first accessed, as importing torch and Lightning takes seconds."""
        if name == "__all__" or not name.startswith("_"):
            public = import_module(".public", __name__)
            globals().update({each: getattr(public, each) for each in ["__all__", *public.__all__]})
        if name not in globals():
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return globals()[name]

    def __dir__() -> list[str]:
        return sorted({*globals(), *__getattr__("__all__")})
