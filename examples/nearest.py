"""Find the photos of a folder that look most like one photo.

python examples/nearest.py RUN PHOTOS QUERY.jpg
"""

import sys
from pathlib import Path

import numpy as np

from fieldmark import Catalog, Encoder


def nearest(run: Path, photos: Path, query: Path, count: int = 5) -> list[tuple[str, float]]:
    """Paths and cosines of the nearest photos, nearest first; unreadable photos are left out."""
    encoder = Encoder.load(run)
    catalog = Catalog.open(photos)
    found = [item for item in encoder.stream(catalog) if item.embedding is not None]
    embeddings = np.stack([item.embedding for item in found])
    similarity = embeddings @ encoder.embed_file(query)
    best = np.argsort(-similarity, kind="stable")[:count]
    return [(catalog[found[i].position].path, float(similarity[i])) for i in best]


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    for path, cosine in nearest(*map(Path, sys.argv[1:4])):
        print(f"{cosine:.3f}  {path}")
