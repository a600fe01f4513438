"""Labels photos that others label too, only where it saw the last state; says what it did at its end."""

import contextlib
import json
import random
import sys
import time
from pathlib import Path

from fieldmark.errors import ConflictError
from fieldmark.index.sqlite import SqliteIndex


def main(place, number, edits):
    random_ = random.Random(number)
    labels, conflicts = [], 0
    with SqliteIndex(Path(place)) as index:
        # All begin together, however long each took to get here.
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
        while len(labels) < edits:
            (item,) = index.get([f"p{random_.randrange(6)}"])
            label = f"{number}-{len(labels)}"
            # Somebody looks at the photo.
            time.sleep(random_.random() * 0.002)
            try:
                seen = {item.key: item.version}
                index.set_labels({item.key: label}, by=str(number), expected=seen)
            except ConflictError:
                conflicts += 1
                continue
            labels.append((item.key, label, str(number)))
    with contextlib.closing(sys.stdout) as out:
        json.dump({"labels": labels, "conflicts": conflicts}, out)


main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
