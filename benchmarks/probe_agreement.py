"""Do the two linear probes agree? Logistic regression on frozen features, and the papers' SGD probe.

    python benchmarks/probe_agreement.py BENCH/cells/DATA --photos DATA.csv

Every finished run of a benchmark's data set, its start and its trained encoder.
"""

import argparse
from pathlib import Path

import numpy as np
from scipy import stats

from _record import record
from fieldmark.evaluation.evaluate import EvalConfig
from fieldmark.workflows.evaluate import evaluate
from fieldmark.workflows.train import read_result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cells", type=Path)
    parser.add_argument(
        "--photos", type=Path, required=True, help="the table that the cells trained on"
    )
    parser.add_argument("--methods", nargs="*", help="all by default")
    options = parser.parse_args()
    config = EvalConfig(fractions=(), sgd_probe=True)
    rows = []
    for run in sorted(options.cells.glob("*/seed-0")):
        method, summary = run.parent.name, read_result(run)
        if summary is None or (options.methods and method not in options.methods):
            continue
        encoder = run / "encoders" / summary["candidate"]
        found = evaluate(encoder, options.photos, labels=options.photos, config=config)
        measures = found.data["measures"]
        row = {"method": method, "logistic": measures["linear"], "sgd": measures["linear_sgd"]}
        rows.append({**row, "photos": found.data["test_photos"]})
        print(rows[-1], flush=True)
    logistic, sgd = (np.array([row[probe] for row in rows]) for probe in ("logistic", "sgd"))
    result = {
        "data": options.cells.name,
        "rows": rows,
        "mean_difference": float((sgd - logistic).mean()),
        "largest_difference": float(np.abs(sgd - logistic).max()),
        "spearman": float(stats.spearmanr(logistic, sgd).statistic),
    }
    print(record(f"probe_agreement_{options.cells.name}", result))


if __name__ == "__main__":
    main()
