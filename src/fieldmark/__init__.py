"""fieldmark learns to tell look-alikes apart from unlabelled photos."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Catalog", "Encoder", "FieldmarkError", "PhotoStore", "__version__"]

if TYPE_CHECKING:
    from fieldmark.data.catalog import Catalog
    from fieldmark.data.store import PhotoStore
    from fieldmark.encoder import Encoder
    from fieldmark.errors import FieldmarkError

_HOME = {
    "Catalog": "fieldmark.data.catalog",
    "Encoder": "fieldmark.encoder",
    "FieldmarkError": "fieldmark.errors",
    "PhotoStore": "fieldmark.data.store",
}


def __getattr__(name: str) -> Any:
    # Imported on first use: `import fieldmark` must not pay for torch.
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'fieldmark' has no attribute '{name}'")
