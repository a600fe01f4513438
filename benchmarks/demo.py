"""Keep what a finished ``make demo`` found, beside a supervised network of the same kind if given.

make demo && python benchmarks/demo.py [--run demo/run] [--minutes 3.1]
"""

import argparse
import json
from pathlib import Path

from _record import record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("demo/run"))
    parser.add_argument("--minutes", type=float, help="wall-clock time of make demo")
    options = parser.parse_args()
    result = json.loads((options.run / "result.json").read_text())
    kept = ("verdict", "sentence", "start", "trained", "gain", "interval", "shipped")
    summary = {key: result[key] for key in kept}
    print(record("demo", {**summary, "minutes": options.minutes}))


if __name__ == "__main__":
    main()
