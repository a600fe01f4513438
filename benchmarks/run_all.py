"""Every speed benchmark in turn, each in a process of its own; needs a quiet machine.

python benchmarks/run_all.py [NAME ...]
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SPEEDS = (
    "embed",
    "folding",
    "index",
    "lodisc_cost",
    "loop",
    "method_cost",
    "retrieval",
    "shipped_latency",
    "store",
    "views",
)


def main() -> int:
    names = sys.argv[1:] or SPEEDS
    failed = []
    for name in names:
        print(f"== {name}", flush=True)
        if subprocess.run([sys.executable, str(HERE / f"{name}.py")], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
