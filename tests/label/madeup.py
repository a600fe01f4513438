"""Made-up embeddings whose truth is known."""

import numpy as np


def clusters(classes=6, each=20, dim=12, spread=0.6, seed=0, shift=0.0):
    """Photos around a direction for each class, classes in turn."""
    draw = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, dim))
    labels = np.arange(classes * each) % classes
    x = centres[labels] + spread * draw.normal(size=(len(labels), dim)) * np.sqrt(dim) / 2 + shift
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), labels
