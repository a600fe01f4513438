from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from fieldmark.cli.console import Json, emit, progress_bars

Photos = Annotated[
    Path, typer.Argument(help="Folder of photos, table (CSV, JSONL, Parquet) or tar shards.")
]
RecipeName = Annotated[
    str, typer.Option("--recipe", help="Shipped recipe (see docs/recipes.md) or a TOML file.")
]
Weights = Annotated[
    Optional[str],  # noqa: UP045 - typer reads it
    typer.Option(help="Starting weights: a .safetensors file, 'random', 'auto' or 'hub'."),
]
Probe = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        help="Table path,class,split: turns on the verdict. Its test photos are never trained on."
    ),
]
Epochs = Annotated[Optional[int], typer.Option(min=1, help="Passes over the photos.")]  # noqa: UP045
Size = Annotated[Optional[int], typer.Option(min=16, help="Input of the network, pixels.")]  # noqa: UP045
Sets = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting: method.temperature=0.1"),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]


def command(
    photos: Photos,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="Folder of the run; give it again to continue. Default: runs/PHOTOS-RECIPE."
        ),
    ] = None,
    recipe: RecipeName = "fieldmark",
    weights: Weights = None,
    probe: Probe = None,
    epochs: Epochs = None,
    size: Size = None,
    sets: Sets = None,
    seed: Annotated[Optional[int], typer.Option(min=0, help="Seed of everything drawn.")] = None,  # noqa: UP045
    device: Device = "auto",
    transductive: Annotated[
        bool, typer.Option(help="Also train on the test photos, unlabelled; the report says so.")
    ] = False,
    ship: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="best (default), trained or start: which encoder is put in RUN/encoder."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option(help="Only plan: images, steps, time, memory, disk.")
    ] = False,
    json: Json = False,
) -> None:
    """Train on unlabelled photos, evaluate against the start, and say whether it helped.

    Running the same command again continues where it stopped, or with more `--epochs` goes on.
    Without labelled test photos a tenth of the photos is kept from training, and a label-free
    criterion decides which encoder ships (docs/protocols.md).

    Examples:

    `fieldmark train photos/ --out run --weights start.safetensors --probe split.csv`

    `fieldmark train photos/ --recipe moco` (goes to runs/photos-mocov2)

    `fieldmark train photos/ --out run --recipe start` (no training: only post-processing)

    `torchrun --nproc-per-node 2 -m fieldmark train photos/ --out run`
    """
    from fieldmark.workflows.recipe import load_recipe

    settings = load_recipe(recipe, sets or (), extra=overrides(weights, epochs, size, seed, ship))
    if dry_run:
        from fieldmark.cli.plan import show

        show(photos, settings, probe, device, json)
        return
    from fieldmark.workflows.run import default_folder
    from fieldmark.workflows.train import train

    with progress_bars() as bars:
        if out is None:
            out = default_folder(photos, settings.name)
            bars.say(f"the run goes to {out} (--out was not given)")
        result = train(
            photos,
            out,
            settings,
            probe=probe,
            transductive=transductive,
            device=device,
            progress=bars,
            say=bars.say,
        )
    if result is not None:
        emit(json, result, _text(result, out))


def overrides(
    weights: str | None = None,
    epochs: int | None = None,
    size: int | None = None,
    seed: int | None = None,
    ship: str | None = None,
) -> dict[str, Any]:
    """Settings that have an option of their own, in the form of a recipe."""
    data: dict[str, Any] = {}
    if weights is not None:
        from fieldmark.backbones.weights import read_metadata

        file = Path(weights).expanduser()
        # A file that names its network stands in for the recipe's network; --set still wins.
        told = read_metadata(file).get("arch") if file.is_file() else None
        data["backbone"] = {"weights": weights, **({"name": told} if told else {})}
    if epochs is not None:
        data.setdefault("train", {})["epochs"] = epochs
    if seed is not None:
        data.setdefault("train", {})["seed"] = seed
    if size is not None:
        data["size"] = size
    if ship is not None:
        data["ship"] = ship
    return data


def _text(result: dict[str, Any], out: Path) -> str:
    lines = [f"Verdict: {result['verdict']}", result["sentence"], ""]
    start, trained = result["start"], result["trained"]
    for name, label in (
        ("rank1", "rank-1"),
        ("rank5", "rank-5"),
        ("map", "mAP"),
        ("linear", "linear"),
    ):
        if start.get(name) is None:
            continue
        line = f"{label:<8}{start[name]:7.2f} → {trained[name]:6.2f}"
        if result["interval"].get(name):
            low, high = result["interval"][name]
            line += f"   gain {result['gain'][name]:+z.2f}  [{low:+z.2f}, {high:+z.2f}]"
        lines.append(line)
    lines += [
        "",
        f"Shipped: {result['shipped']} → {out / 'encoder'}",
        f"Report:  {out / 'report.html'}",
    ]
    return "\n".join(lines)
