"""Which measure that needs no labels tells training that helped from training that hurt?

Every encoder of the given run folders is looked at on photos that it was not trained on (the test
photos, without their labels); the truth is the run's own gain over its start by their labels. Nothing is chosen on one data set
and judged on the same: criteria with fitted weights are judged leave-one-data-set-out.

    python benchmarks/label_free.py --data DIR --work DIR --runs DIR...
    python benchmarks/label_free.py --table
"""

import argparse
import json
import math
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from _record import record
from fieldmark import rng
from fieldmark.data.catalog import Catalog
from fieldmark.data.sampling import MultiView
from fieldmark.data.splits import match_split
from fieldmark.data.store import PhotoStore
from fieldmark.data.views import ViewMaker
from fieldmark.encoder import Encoder
from fieldmark.evaluation.labelfree import (
    CHANGE_PRICE,
    agreement,
    changed_neighbours,
    decide_without_labels,
    gain_of_agreement,
)
from fieldmark.nn.measures import (
    alignment,
    effective_rank,
    neighbours,
    uniformity,
    view_recall,
)
from fieldmark.nn.spec import PostConfig
from fieldmark.workflows.post import LOOKS
from fieldmark.workflows.reference import reference_embeddings, yardstick

PHOTOS, LOOKED_AT, NEIGHBOURS = 1500, 500, 10
FEW, DRAWS = (20, 50, 100, 200, 500), 20
"""Photos that the shipping rule looks at, and random choices of them."""
PRICES = (0.02, CHANGE_PRICE, 0.1)
"""Agreement that a change of all neighbours costs."""
SMALL = 3.0
"""Points: among runs whose gain is at most this, the sign is hard to tell and matters most."""


def unit(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(x.float(), dim=1)


class Bench:
    """What is the same for all runs on one set of photos."""

    def __init__(self, folder: Path, work: Path) -> None:
        catalog = Catalog.open(folder / "images")
        self.store = PhotoStore.build(catalog, work / f"store-{folder.name}", short_side=288)
        split = match_split(catalog, folder / "split.csv")
        self.train_rows, rows = split.train_rows, split.test_rows
        order = np.argsort(rng.mix("label-free", rows), kind="stable")
        self.rows = np.sort(rows[order[:PHOTOS]])
        self.few = np.sort(self.rows[np.argsort(rng.mix("few", self.rows))[:LOOKED_AT]])
        self.name, self.work = folder.name, work
        self.size = 0

    def prepare(self, start: Encoder) -> None:
        """Two looks at some photos, and what the start says of all when it looks long."""
        if self.size:
            return
        self.size = start.size
        spec = LOOKS.model_copy(update={"size": start.size, "count": 2})
        maker = ViewMaker(self.store, MultiView(specs=(spec,)), seed=1)
        made = [maker.make(self.few[i : i + 100], 0) for i in range(0, len(self.few), 100)]
        self.looks = [torch.cat([views[k].images for views in made]) for k in (0, 1)]
        kept = self.work / f"reference-{self.name}.pt"
        if not kept.is_file():
            found = reference_embeddings(start.spec, self.store, self.train_rows, self.rows)
            torch.save(torch.from_numpy(found), kept)
        self.ensemble = torch.load(kept, weights_only=True)
        self.shared = torch.from_numpy(yardstick(self.ensemble.numpy()))

    def look(self, encoder: Encoder) -> dict[str, dict[str, torch.Tensor]]:
        """Embeddings of one encoder, as it is and with the post-processing it ships with."""
        spec = encoder.spec
        plain = Encoder(spec.with_post(PostConfig(crop=spec.crop)))
        kept = self.work / f"seen-{self.name}-{plain.identity[:16]}.pt"
        if not kept.is_file():
            raw = {"whole": torch.from_numpy(plain.embed_store(self.store, self.rows))}
            for i, looks in enumerate(self.looks):
                raw[f"look{i}"] = torch.cat([plain.encode(part) for part in looks.split(64)])
            torch.save(raw, kept)
        raw = torch.load(kept, weights_only=True)
        if spec.whitening is None or spec.post.flip:
            return {"plain": raw}
        return {"plain": raw, "post": {name: spec.finish(x) for name, x in raw.items()}}


def measure(
    x: dict[str, torch.Tensor], start: dict[str, torch.Tensor], bench: Bench
) -> dict[str, float]:
    """Criteria; larger is meant to be better, 0 is the start where it is a difference."""

    def of(y: dict[str, torch.Tensor]) -> dict[str, float]:
        whole = y["whole"]
        near = neighbours(whole, NEIGHBOURS)
        counts = torch.bincount(near.flatten(), minlength=len(near)).double()
        mutual = (near[near] == torch.arange(len(near))[:, None, None]).any(2).double().mean()
        spread = whole.std(0, correction=0).square().sum()
        return {
            "view recall": view_recall(y["look0"], y["look1"]),
            "effective rank": math.log(effective_rank(whole)),
            "alignment": -alignment(y["look0"], y["look1"]),
            "uniformity": -uniformity(whole),
            "alignment over spread": -math.log(
                alignment(y["look0"], y["look1"]) / (2 * float(spread))
            ),
            "agreement with the start seen larger": mean_agreement(whole, bench.ensemble),
            "… shared among neighbours": mean_agreement(whole, bench.shared),
            "correlation of similarities": correlation(whole, bench.ensemble),
            "mutual neighbours": float(mutual),
            "few hubs": -float(stats.skew(counts.numpy())),
        }

    now, before = of(x), of(start)
    result = {name: now[name] - before[name] for name in now}
    changed = float(changed_neighbours(start["whole"].numpy(), x["whole"].numpy()).mean())
    for price in PRICES:
        paid = result["… shared among neighbours"] - price * changed
        result[f"… shared, less {price} of what changed"] = paid
    return {**result, "start's neighbours kept": -changed}


def rule(x: torch.Tensor, start: torch.Tensor, reference: torch.Tensor) -> dict[str, float]:
    """How often ``fieldmark train`` would ship the encoder after looking at so many photos."""
    shares = {}
    for photos in FEW:
        draws = np.random.default_rng(0)
        shipped = 0
        for _ in range(DRAWS):
            rows = draws.choice(len(x), photos, replace=False)
            wanted = yardstick(reference[rows].numpy())
            sides = [y[rows].numpy() for y in (start, x)]
            agreed = [agreement(side, wanted) for side in sides]
            learnt = gain_of_agreement(agreed[0], agreed[1], changed_neighbours(sides[0], sides[1]))
            shipped += decide_without_labels(learnt) == "helped"
        shares[str(photos)] = shipped / DRAWS
    return shares


def judge_rule(data: list[dict[str, Any]], truth: str = "map") -> list[dict[str, Any]]:
    """What following the rule loses, run by run, against the better of start and trained."""
    runs = [point for point in data if point["rule"] is not None]
    gains = np.array([point["gain"][truth] for point in runs])
    ways = {f"the rule, {n} photos": np.array([p["rule"][str(n)] for p in runs]) for n in FEW}
    ways["always the start"] = np.zeros(len(runs))
    ways["always the trained one"] = np.ones(len(runs))
    best = np.maximum(gains, 0)
    return [
        {
            "way": name,
            "runs": len(runs),
            "right": float(np.where(gains > 0, share, 1 - share).mean()),
            "lost": float((best - share * gains).mean()),
            "most_lost": float((best - share * gains).max()),
            "shipped_though_worse": float((share * (gains < 0)).sum()),
            "kept_back_though_better": float(((1 - share) * (gains > 0)).sum()),
        }
        for name, share in ways.items()
    ]


def rule_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| who decides | right | lost, mean | lost, worst | shipped though worse | kept back though better |",
        "|---" * 6 + "|",
    ]
    for row in rows:
        cells = [row["way"], f"{100 * row['right']:.0f} %", f"{row['lost']:.2f}"]
        cells.append(f"{row['most_lost']:.2f}")
        cells += [f"{row[k]:.1f}" for k in ("shipped_though_worse", "kept_back_though_better")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def mean_agreement(x: torch.Tensor, reference: torch.Tensor) -> float:
    return float(agreement(x.numpy(), reference.numpy()).mean())


def correlation(x: torch.Tensor, other: torch.Tensor) -> float:
    """Pearson's, between the similarities of all pairs of photos."""
    i, j = torch.triu_indices(len(x), len(x), 1)
    return float(torch.corrcoef(torch.stack([(x @ x.T)[i, j], (other @ other.T)[i, j]]))[0, 1])


def weight_distance(one: Encoder, other: Encoder) -> float:
    theirs = dict(other.spec.backbone.named_parameters())
    moved = total = 0.0
    for name, value in one.spec.backbone.named_parameters():
        if name in theirs:
            moved += float((value - theirs[name]).square().sum())
            total += float(theirs[name].square().sum())
    return math.sqrt(moved / total)


def points_of(run: Path, bench: Bench) -> list[dict[str, Any]]:
    """What one run's encoders look like, and what they truly gained."""
    found = []
    result = json.loads((run / "result.json").read_text())
    start = Encoder.load(run / "encoders" / "start")
    bench.prepare(start)
    before = bench.look(start)
    for who in ("student", "teacher"):
        if not (run / "encoders" / who).is_dir():
            continue
        encoder = Encoder.load(run / "encoders" / who)
        for how, x in bench.look(encoder).items():
            truth = result["candidates"]
            gains = {
                key: truth[f"{who}, {how}"][key] - truth[f"start, {how}"][key]
                for key in ("rank1", "map")
            }
            criteria = measure(x, before[how], bench)
            criteria["distance from the start"] = -weight_distance(encoder, start)
            point: dict[str, Any] = {"photos": bench.name, "run": f"{run.parent.name}/{run.name}"}
            # What a run ships: one of its encoders, with its post-processing where it has one.
            last = how == ("post" if "post" in before else "plain")
            candidate = last and who == result["candidate"]
            shipped = rule(x["whole"], before[how]["whole"], bench.ensemble) if candidate else None
            point |= {"who": who, "how": how, "gain": gains, "criteria": criteria}
            found.append({**point, "rule": shipped})
            print(run.name, who, how, {k: round(v, 2) for k, v in gains.items()}, flush=True)
    return found


def judge(
    data: list[dict[str, Any]], truth: str = "map", combined: bool = True
) -> list[dict[str, Any]]:
    """Each criterion: AUC of the sign, Spearman, regret; combinations leave one data set out."""
    gains = np.array([point["gain"][truth] for point in data])
    groups = np.array([point["photos"] for point in data])
    names = list(data[0]["criteria"])
    values = {name: np.array([p["criteria"][name] for p in data]) for name in names}
    values["always the start"] = np.full(len(data), -1.0)
    if combined:
        values["fitted: all of these"] = left_out(
            np.stack([values[n] for n in names], 1), gains, groups
        )
        values["best on the other sets"] = chosen_elsewhere(values, gains, groups)
    rows = []
    for name, value in values.items():
        small = np.abs(gains) <= SMALL
        helped = gains > 0
        auc = area(value[small], helped[small])
        correlations, regrets = [], []
        for group in np.unique(groups):
            mine = groups == group
            if np.ptp(value[mine]) > 0:
                correlations.append(stats.spearmanr(value[mine], gains[mine]).statistic)
            # The start itself is a candidate, with criterion 0 and gain 0.
            best = int(np.argmax(value[mine]))
            chosen = gains[mine][best] if value[mine][best] > 0 else 0.0
            regrets.append(max(0.0, gains[mine].max()) - chosen)
        rows.append(
            {
                "criterion": name,
                "auc": auc,
                "spearman": float(np.mean(correlations)) if correlations else None,
                "regret": float(np.mean(regrets)),
                "worst_regret": float(np.max(regrets)),
            }
        )
    return sorted(rows, key=lambda row: row["regret"])


def chosen_elsewhere(
    values: dict[str, np.ndarray], gains: np.ndarray, groups: np.ndarray
) -> np.ndarray:
    """On each data set the criterion with the highest mean Spearman on the others."""
    result = np.zeros(len(gains))
    for group in np.unique(groups):

        def elsewhere(value: np.ndarray, group: str = group) -> float:
            others = [groups == other for other in np.unique(groups) if other != group]
            if any(np.ptp(value[mine]) == 0 for mine in others):
                return -np.inf
            return float(np.mean([stats.spearmanr(value[m], gains[m]).statistic for m in others]))

        # Fitted weights have seen the other sets' gains.
        able = {name: value for name, value in values.items() if not name.startswith("fitted")}
        best = max(able, key=lambda name: elsewhere(able[name]))
        print(f"{group}: on the other sets the best is {best}")
        result[groups == group] = values[best][groups == group]
    return result


def area(value: np.ndarray, positive: np.ndarray) -> float | None:
    """Area under the ROC curve; ties count half."""
    first, second = value[positive], value[~positive]
    if not len(first) or not len(second):
        return None
    above = (first[:, None] > second).mean()
    return float(above + 0.5 * (first[:, None] == second).mean())


def left_out(x: np.ndarray, gains: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Ridge regression on the other data sets, predicting this one; scale from the others too."""
    result = np.zeros(len(gains))
    for group in np.unique(groups):
        test, train = groups == group, groups != group
        if not train.any():
            continue
        # No intercept: criterion 0 is the start, whose gain is 0.
        scale = np.sqrt((x[train] ** 2).mean(0)) + 1e-12
        a, b = x[train] / scale, np.clip(gains[train], -SMALL, SMALL)
        weight = np.linalg.solve(a.T @ a + 0.1 * len(a) * np.eye(a.shape[1]), a.T @ b)
        result[test] = (x[test] / scale) @ weight
    return result


def table(rows: list[dict[str, Any]], **apart: list[dict[str, Any]]) -> str:
    """Criteria down, measures across; the AUC also of each part of the encoders that is given."""
    aucs = {"AUC of the sign": rows, **{f"… {name}": part for name, part in apart.items()}}
    head = ["criterion", *aucs, "Spearman", "regret, mean", "regret, worst"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        name = row["criterion"]
        same = [next(r for r in part if r["criterion"] == name) for part in aucs.values()]
        numbers = [r["auc"] for r in same] + [
            row[k] for k in ("spearman", "regret", "worst_regret")
        ]
        told = ("–" if number is None else f"{number:.2f}".replace("-", "−") for number in numbers)
        lines.append(f"| {' | '.join([name, *told])} |")
    return "\n".join(lines)


def show(judged: dict[str, Any], rules: dict[str, Any]) -> None:
    """All tables; the first is that of docs/results.md."""
    parts = {"plain": judged["map, plain"], "post-processed": judged["map, post"]}
    print(f"\nmap\n{table(judged['map'], **parts)}")
    for how, rows in judged.items():
        if how != "map":
            print(f"\n{how}\n{table(rows)}")
    for how, rows in rules.items():
        print(f"\n{how}\n{rule_table(rows)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--runs", type=Path, nargs="+", help="folders of run folders")
    parser.add_argument(
        "--later",
        nargs="+",
        default=[],
        metavar="PATTERN",
        help="runs (FOLDER/NAME) made after criterion and price were fixed; also judged apart",
    )
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.table:
        recorded = Path(__file__).parent / "results" / "label_free.json"
        told = json.loads(recorded.read_text())
        show(told["judged"], told["rule"])
        return
    if not (options.data and options.work and options.runs):
        parser.error("--data, --work and --runs are needed")
    kept: dict[str, Bench] = {}

    def bench(name: str) -> Bench:
        if name not in kept:
            kept[name] = Bench(options.data / name, options.work)
        return kept[name]

    runs = [
        run.parent
        for folder in options.runs
        for run in sorted(folder.glob("*/result.json"))
        if (run.parent / "encoders" / "student").is_dir()
    ]
    data = []
    houses = set()
    for run in runs:
        found = points_of(run, bench(next(part for part in run.name.split("-") if part)))
        # Read as it is: a run of an older version may have settings that are gone.
        settings = tomllib.loads((run / "config.resolved.toml").read_text())
        if settings["method"]["name"] == "house":
            houses.add(found[0]["run"])
        data += found
    judged = {truth: judge(data, truth) for truth in ("map", "rank1")}
    # Their loss is of the same kind as the reference: is it only for them that it is right?
    others = [point for point in data if point["run"] not in houses]
    judged["map, without house"] = judge(others, "map")
    for how in ("plain", "post"):
        judged[f"map, {how}"] = judge([p for p in data if p["how"] == how], "map")
    rules = {"all": judge_rule(data), "without house": judge_rule(others)}
    later = [p for p in data if any(fnmatch(p["run"], pattern) for pattern in options.later)]
    if later:
        judged["map, made later"] = judge(later, "map", combined=False)
        rules["made later"] = judge_rule(later)
    print(record("label_free", {"points": data, "judged": judged, "rule": rules}))
    show(judged, rules)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
