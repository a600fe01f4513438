"""The sheet in the README: two species of drawn birds, explained.

    python docs/sheet.py --encoder RUN

No photo may be copied into the repository, so the birds are drawn; their marks are known. Written
is the top of the sheet that ``fieldmark explain --classes`` makes, as docs/explain.png.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from fieldmark.data.aviary import AviaryConfig, draw, write
from fieldmark.workflows.explain import explain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", type=Path, required=True, help="run or encoder folder")
    parser.add_argument("--species", type=int, nargs=2, default=(0, 1))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "explain.png")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        birds, sheet = Path(folder) / "birds", Path(folder) / "sheet.png"
        aviary = draw(AviaryConfig(species=max(options.species) + 1, per_species=16, size=320))
        write(aviary, birds)
        names = sorted(path.name for path in (birds / "images").iterdir())
        first, second = (names[label] for label in options.species)
        explain(options.encoder, [birds / "images"], sheet, classes=(first, second))
        with Image.open(sheet) as whole:
            top = until_the_second_rule(np.asarray(whole.convert("RGB")))
    # 192 colours are enough for drawings, and a third of the bytes.
    Image.fromarray(top).quantize(192).save(options.out, optimize=True)


def until_the_second_rule(page: np.ndarray) -> np.ndarray:
    """The page's opening and its first section: rules are lines of one colour, margin to margin."""
    inside = page[:, 45:-45]
    even = (inside == inside[:, :1]).all((1, 2)) & (inside[:, 0] != page[0, 0]).any(1)
    return page[: np.flatnonzero(even)[1]]


if __name__ == "__main__":
    main()
