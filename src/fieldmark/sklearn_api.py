"""An encoder as a step of a scikit-learn pipeline."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from fieldmark.encoder import Encoder


class EncoderTransformer(TransformerMixin, BaseEstimator):
    """Turns photos into embeddings; nothing is learnt from them.

    Args:
        encoder: Folder of a saved encoder, or an :class:`Encoder`.
        batch_size: Photos per forward pass.
        device: Where to compute, when ``encoder`` is a folder.

    Example:
        >>> from sklearn.linear_model import LogisticRegression
        >>> from sklearn.pipeline import make_pipeline
        >>> pipeline = make_pipeline(EncoderTransformer("run/encoder"), LogisticRegression())
        >>> pipeline.fit(["a.jpg", "b.jpg"], ["wren", "robin"])  # doctest: +SKIP
    """

    def __init__(
        self,
        encoder: "str | Path | Encoder" = "run/encoder",
        batch_size: int = 64,
        device: str = "auto",
    ) -> None:
        self.encoder = encoder
        self.batch_size = batch_size
        self.device = device

    def fit(self, photos: Any = None, labels: Any = None) -> "EncoderTransformer":
        """Load the encoder; photos and labels are not looked at."""
        given = self.encoder
        self.encoder_ = (
            given if isinstance(given, Encoder) else Encoder.load(given, device=self.device)
        )
        self.n_features_out_ = self.encoder_.dim
        return self

    def transform(self, photos: Any) -> Float[np.ndarray, "N D"]:
        """Embed photos; see :meth:`Encoder.embed` for what they may be."""
        check_is_fitted(self, "encoder_")
        return self.encoder_.embed(photos, batch_size=self.batch_size)

    def get_feature_names_out(self, input_features: Any = None) -> Any:
        """Names of the embedding's dimensions."""
        check_is_fitted(self, "encoder_")
        return np.asarray(
            [f"fieldmark{index}" for index in range(self.n_features_out_)], dtype=object
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.requires_fit = True
        return tags
