"""Writes to an index until it is killed, and says what it has done once that is acknowledged."""

import itertools
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from vectors import DIM, ENCODER, unit

from fieldmark.index.sqlite import SqliteIndex


def say(**told):
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def main(place, turn):
    index = SqliteIndex(Path(place), create=True)
    index.add_space(ENCODER, DIM)
    say(did="start")
    for number in itertools.count():
        seed = 1000 * turn + number
        # Keys that begin with d are deleted later, all others stay.
        keys = [f"{'d' if i < 2 else 'k'}{turn}-{number}-{i}" for i in range(8)]
        index.add(keys, unit(8, seed=seed))
        say(did="add", keys=keys, seed=seed)
        labels = dict.fromkeys(keys[3:6], f"label {number}")
        index.set_labels(labels)
        say(did="label", labels=labels)
        index.remove(keys[:2])
        say(did="remove", keys=keys[:2])


main(sys.argv[1], int(sys.argv[2]))
