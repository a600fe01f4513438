"""Whether the built page in the package is the one that these sources make.

The built files are committed, so that nobody needs Node to install fieldmark. ``web/stamp.py`` writes down
what they were built from; ``web/stamp.py --check`` compares, without Node.
"""

import hashlib
import sys
from pathlib import Path

WEB = Path(__file__).parent
STATIC = WEB.parent / "src" / "fieldmark" / "app" / "static"
STAMP = STATIC / "built-from.txt"
_TOP = ("index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts")


def digest() -> str:
    """SHA-256 over the names and contents of everything that the built page depends on."""
    total = hashlib.sha256()
    sources = [path for path in (WEB / "src").rglob("*") if path.is_file()]
    sources = [path for path in sources if not path.name.endswith(".test.ts")]
    for path in sorted([*sources, *(WEB / name for name in _TOP)]):
        total.update(f"{path.relative_to(WEB).as_posix()}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def main() -> int:
    """Write the stamp, or with ``--check`` say whether it fits."""
    found = digest()
    if "--check" not in sys.argv[1:]:
        STAMP.write_text(found + "\n", encoding="utf-8")
        return 0
    told = STAMP.read_text(encoding="utf-8").strip() if STAMP.is_file() else "nothing"
    if told != found:
        sys.stderr.write(
            f"src/fieldmark/app/static was built from {told[:12]}, and web/ is {found[:12]} now; run "
            "'make page' and commit what it builds.\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
