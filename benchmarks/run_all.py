"""Every speed benchmark in turn, each in a process of its own; needs a quiet machine.

python benchmarks/run_all.py [NAME ...]
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
NOT_SPEEDS = {
    "_record",
    "_things",
    "ablations",
    "aviary_teacher",
    "run_all",
    "first_results",
    "start_recipe",
    "photo_size",
    "aviary_difficulty",
    "demo",
    "guidance_layers",
    "attention_sheet",
    "ais_background",
    "distil_vit",
    "few_photos",
    "label_free",
    "lodisc_masks",
    "methods_table",
}


def main() -> int:
    names = sys.argv[1:] or [
        path.stem for path in sorted(HERE.glob("*.py")) if path.stem not in NOT_SPEEDS
    ]
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
