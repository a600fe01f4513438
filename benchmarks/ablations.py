"""The studies that the published systems declare, on real photos, at the gentle settings.

``fieldmark ablate`` for each method, from the shared weights, on cub50. PP-SSL's studies of its texts
are not here: they need a text-image teacher that knows the photos. Short single runs: what a part
does, not how far a method gets. Interrupted, it goes on with the variants that are missing.

    python benchmarks/ablations.py --data DIR --work DIR [--methods msam lcr] [--epochs 2]
    python benchmarks/ablations.py --keep --work DIR     keep what an interrupted call has so far
    python benchmarks/ablations.py --table
"""

import argparse
import json
from pathlib import Path
from typing import Any

from _record import RESULTS, record
from fieldmark.config import merge
from fieldmark.workflows.ablate import ablate, as_markdown
from methods_table import SETTINGS, WEIGHTS, gentle, network_of

STUDIES = {
    "msam": ("module",),
    "lcr": ("map",),
    "ppssl": ("form", "layers", "IADM weight"),
    "lodisc": ("branches", "selection", "keep", "layers"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, help="where runs are kept")
    parser.add_argument("--photos", default="cub50")
    parser.add_argument("--methods", nargs="+", default=list(STUDIES), choices=STUDIES)
    parser.add_argument("--studies", nargs="+", help="only these")
    parser.add_argument("--weights", type=Path, help="another start, such as a distilled ViT")
    parser.add_argument("--epochs", type=int, help="default: what gentle settings say")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--table", action="store_true", help="print what was recorded")
    parser.add_argument(
        "--keep", action="store_true", help="record what --work holds, train nothing"
    )
    options = parser.parse_args()
    if options.keep:
        for path in sorted(options.work.glob("*/ablation.json")):
            keep(path.parent.name, json.loads(path.read_text()))
    elif not options.table:
        if options.data is None or options.work is None:
            parser.error("--data and --work are needed to train")
        for method in options.methods:
            study(options, method)
    print(table(recorded()))


def study(options: argparse.Namespace, method: str) -> None:
    """All studies of one method; kept after the last."""
    weights = options.weights or options.data / WEIGHTS
    settings: dict[str, Any] = {
        "size": options.size,
        "backbone": network_of(weights),
        "train": {"precision": "fp32"},
    }
    if options.epochs:
        settings["train"]["epochs"] = options.epochs
    extra: dict[str, Any] = {}
    for part in (gentle(weights), SETTINGS[method].gentle, settings):
        extra = merge(extra, part)
    name = f"{method}-{options.photos}-{Path(weights).stem.split('.')[0]}"
    found = ablate(
        method,
        options.data / options.photos / "images",
        options.work / name,
        extra=extra,
        studies=[s for s in STUDIES[method] if not options.studies or s in options.studies],
        probe=options.data / options.photos / "split.csv",
        seeds=options.seeds,
        say=print,
    )
    assert found is not None
    keep(name, found)


def keep(name: str, found: dict[str, Any]) -> None:
    """Add or replace what one call of ``fieldmark ablate`` found."""
    found = {**found, "probe": Path(found["probe"]).parent.name}
    record("ablations", {"studies": {**recorded(), name: found}})


def recorded() -> dict[str, Any]:
    """Every study so far."""
    path = RESULTS / "ablations.json"
    return json.loads(path.read_text())["studies"] if path.is_file() else {}


def table(studies: dict[str, Any]) -> str:
    """The tables of ``fieldmark ablate``, one run after the other."""
    return "\n".join(f"{name}\n\n{as_markdown(found)}" for name, found in studies.items())


if __name__ == "__main__":
    main()
