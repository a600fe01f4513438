"""Unit vectors and two encoders' names for the index's tests."""

import numpy as np

ENCODER, OTHER = "a" * 64, "b" * 64
DIM = 8


def unit(count, dim=DIM, seed=0):
    found = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)
