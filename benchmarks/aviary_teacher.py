"""Train a small text-image teacher on drawn pictures, and test it on pictures that it never saw.

python benchmarks/aviary_teacher.py --out DIR [--steps 1200]

PP-SSL needs a teacher that truly tells a crop of the bird from one of its surroundings. Where no
published one can be had, this makes one for aviary in a few minutes on one core: birds of all 64
species, ten other kinds of thing and bare surroundings, each crop with a caption of what is in it.
Captions name the kind of thing, its parts and its surroundings, never the species and no mark's
form. Weights are not kept in the repository; name the folder as ``fieldmark:DIR``.
"""

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from _record import record
from _things import KINDS, draw_things
from fieldmark.data.aviary import (
    FORMS,
    MARKS,
    PARTS,
    SPECIES_LIMIT,
    AviaryConfig,
    draw,
    species,
    swapped_places,
)
from fieldmark.data.layout import MemoryPhotos
from fieldmark.data.sampling import MultiView, ViewSpec
from fieldmark.data.views import ViewMaker
from fieldmark.nn.frozen import CLIP, prepare
from fieldmark.nn.text_teacher import SmallTeacher
from fieldmark.nn.texts import TextBank, text_bank
from fieldmark.nn.towers import Towers, TowersConfig, split_words

SIZE, BATCH = 64, 128
BIRD, BACKGROUND, NEITHER = "bird", "background", "neither"
NAMES = (BIRD, BACKGROUND, *KINDS)
# A crop shows its thing from this share of its pixels on, and does not below the other.
SHOWS, SHOWS_NOT = 0.12, 0.01
TRAIN_SEED, TEST_SEED = 101, 202
OWN_TEXTS = Path(__file__).with_name("aviary_texts.toml")

_BACKGROUNDS = (
    "a blurred background characterised by soft discs of light",
    "foliage characterised by leaves and stems that overlap",
    "a bare twig characterised by brown bark, with nothing on it",
    "a tree characterised by a woody trunk, spreading branches and green leaves",
    "a landscape characterised by open sky, distant hills and soft light",
)
_COARSE_BACKGROUNDS = ("a blurred background", "foliage", "a bare twig", "a tree", "a landscape")
_WHERE = (
    "", "", " among leaves", " against a blurred background", " on a twig", " outside", " in soft light",
)  # fmt: skip
_PART_WORDS = {
    "bill": "its bill", "eye": "its eye", "crown": "its head", "breast": "its breast feathers",
    "wing": "marks on its wing", "tail": "its tail", "feet": "its feet",
}  # fmt: skip
# The description of every kind, as the shipped bank has it.
_FINE = {
    name: next(t for t in text_bank("birds").select(16) if split_words(t)[1] == name)
    for name in NAMES
    if name != BACKGROUND
}


class Pictures(NamedTuple):
    """What crops are cut from."""

    images: Any
    masks: Any
    names: Any
    """Index into ``NAMES`` per picture."""
    parts: Any
    """x, y in [0, 1] of a bird's parts; outside for everything else."""


def pictures(birds_per_species: int, things: int, seed: int) -> Pictures:
    """Birds, other things, and the surroundings of both without them."""
    aviary = draw(AviaryConfig(species=64, per_species=birds_per_species, size=SIZE, seed=seed))
    images, masks = [aviary.images], [aviary.masks]
    names = [np.zeros(len(aviary.images), int)]
    parts = [aviary.parts / SIZE]
    empty = [aviary.backgrounds[::4]]
    for kind in KINDS:
        drawn = draw_things(kind, things, SIZE, seed)
        images.append(drawn.images)
        masks.append(drawn.masks)
        names.append(np.full(things, NAMES.index(kind)))
        empty.append(drawn.backgrounds[::4])
    images += empty
    masks += [np.zeros(one.shape[:3], bool) for one in empty]
    names += [np.full(len(one), 1) for one in empty]
    images, masks, names = (np.concatenate(x) for x in (images, masks, names))
    far = np.full((len(images) - len(aviary.images), len(PARTS), 2), -9.0)
    return Pictures(images, masks, names, np.concatenate([*parts, far]))


class Crops(NamedTuple):
    """Views and what is in them."""

    images: Tensor
    names: list[str]
    """One of ``NAMES``, or neither where too little of the thing shows to say."""
    parts: list[list[str]]
    """A bird's parts whose point is in the crop."""


def crop(shown: Pictures, maker: ViewMaker, rows: Any, epoch: int) -> Crops:
    (view,) = maker.make(rows, epoch)
    names, parts = [], []
    for row, box in zip(rows, view.boxes.numpy(), strict=True):
        x0, y0, x1, y1 = (round(float(edge) * SIZE) for edge in box)
        share = shown.masks[row, y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)].mean()
        name = NAMES[shown.names[row]]
        if name != BACKGROUND:
            name = name if share >= SHOWS else BACKGROUND if share <= SHOWS_NOT else NEITHER
        names.append(name)
        inside = ((shown.parts[row] > box[:2]) & (shown.parts[row] < box[2:])).all(axis=1)
        parts.append([part for part, there in zip(PARTS, inside, strict=True) if there])
    return Crops(view.images, names, parts)


def caption(name: str, parts: list[str], dice: np.random.Generator) -> str:
    """Say what is in a crop, each time in other words."""
    style = dice.integers(4)
    if name == BACKGROUND:
        texts = _BACKGROUNDS if style < 2 else _COARSE_BACKGROUNDS
        return str(dice.choice(texts))
    if style == 0:
        return _FINE[name]
    article = f"a {name}"
    words = _FINE[name].split("characterised by ", 1)[1].replace(",", "").split()
    if style == 1:
        start = int(dice.integers(max(1, len(words) - 3)))
        article += " with " + " ".join(words[start : start + 4])
    if name == BIRD and style == 2 and parts:
        some = dice.permutation(parts)[: 1 + dice.integers(2)]
        article += " showing " + " and ".join(_PART_WORDS[part] for part in some)
    return article + str(dice.choice(_WHERE))


def known_words() -> tuple[str, ...]:
    texts = [*_FINE.values(), *_BACKGROUNDS, *_COARSE_BACKGROUNDS, *_WHERE]
    texts += [*_PART_WORDS.values(), "with showing and a an"]
    for bank in (text_bank("birds"), TextBank.read(OWN_TEXTS)):
        texts += bank.select(bank.available("coarse"), "coarse")
    return tuple(sorted({word for text in texts for word in split_words(text)}))


def contrast(images: Tensor, texts: Tensor, scale: Tensor, same: Tensor) -> Tensor:
    """CLIP's loss; captions of the same kind of thing are not held against each other."""
    logits = scale * images @ texts.T
    own = same / same.sum(1, keepdim=True)
    return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2


def train(options: argparse.Namespace) -> Towers:
    shown = pictures(options.birds, options.things, TRAIN_SEED)
    # As hard as what a method shows its teacher, and smaller crops too.
    spec = ViewSpec(size=SIZE, scale=(0.06, 1.0))
    maker = ViewMaker(MemoryPhotos(shown.images), MultiView(specs=(spec,)), seed=7)
    torch.manual_seed(0)
    towers = Towers(TowersConfig(words=known_words(), size=SIZE, width=options.width))
    optimizer = torch.optim.AdamW(towers.parameters(), 2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=options.steps)
    groups = [np.flatnonzero(shown.names == i) for i in range(len(NAMES))]
    weights = np.array([4.0, 2.0, *[0.5] * len(KINDS)])
    for step in range(options.steps):
        dice = np.random.default_rng([3, step])
        chosen = dice.choice(len(NAMES), BATCH, p=weights / weights.sum())
        rows = np.array([dice.choice(groups[i]) for i in chosen])
        crops = crop(shown, maker, rows, step)
        keep = [i for i, name in enumerate(crops.names) if name != NEITHER]
        names = np.array(crops.names)[keep]
        captions = [caption(crops.names[i], crops.parts[i], dice) for i in keep]
        images = towers.encode_image(prepare(crops.images[keep], SIZE, *CLIP))
        same = torch.from_numpy(names[:, None] == names[None]).float()
        loss = contrast(images, towers.encode_text(captions), towers.scale, same)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == options.steps - 1:
            print(f"step {step} loss {loss.item():.3f} scale {towers.scale.item():.1f}", flush=True)
    return towers


class Seen(NamedTuple):
    """Held-out crops as the teacher sees them."""

    vectors: Tensor
    names: Any


def look(teacher: SmallTeacher, test: Pictures, spec: ViewSpec) -> Seen:
    maker = ViewMaker(MemoryPhotos(test.images), MultiView(specs=(spec,)), seed=11)
    names, vectors = [], []
    for rows in np.array_split(np.arange(len(test.images)), len(test.images) // 256 + 1):
        crops = crop(test, maker, rows, 0)
        names += crops.names
        vectors.append(teacher.encode_images(crops.images))
    return Seen(torch.cat(vectors), np.array(names))


def relevance(teacher: SmallTeacher, vectors: Tensor, texts: list[str]) -> Tensor:
    """Share of each text, the relevant one first."""
    return (teacher.scale * vectors @ teacher.encode_texts(texts).T).softmax(1)


def examine(teacher: SmallTeacher, seen: Seen, texts: list[str]) -> dict[str, Any]:
    """Does the relevant text win on crops of birds, and lose on all others?"""
    odds = relevance(teacher, seen.vectors, texts)
    wins, share = (odds.argmax(1) == 0).numpy(), odds[:, 0].numpy()
    bird, nothing = seen.names == BIRD, seen.names == BACKGROUND
    thing = ~bird & ~nothing & (seen.names != NEITHER)
    found = {
        "bird": wins[bird].mean(),
        "background": 1 - wins[nothing].mean(),
        "other_things": 1 - wins[thing].mean(),
    }
    found["balanced"] = (found["bird"] + (found["background"] + found["other_things"]) / 2) / 2
    # How often a bird has more of the relevant text than something else has.
    other = np.sort(share[nothing | thing])
    return {
        **{key: round(100 * float(value), 2) for key, value in found.items()},
        "auc": round(float(np.searchsorted(other, share[bird]).mean() / len(other)), 4),
        "mean_share_of_relevant_text": {
            "bird": round(float(share[bird].mean()), 3),
            "background": round(float(share[nothing].mean()), 3),
            "other_things": round(float(share[thing].mean()), 3),
        },
    }


def elsewhere(teacher: SmallTeacher, texts: list[str]) -> dict[str, float]:
    """Does the answer follow the bird or what surrounds it? Whole held-out photos."""
    config = AviaryConfig(species=16, per_species=24, size=SIZE, seed=TEST_SEED + 1)
    own, moved = draw(config), draw(config, places=swapped_places(config))
    result = {}
    for name, photos in (
        ("own_surroundings", own.images),
        ("swapped_surroundings", moved.images),
        ("without_the_bird", own.backgrounds),
    ):
        images = torch.from_numpy(photos).permute(0, 3, 1, 2) / 255
        wins = relevance(teacher, teacher.encode_images(images), texts).argmax(1) == 0
        result[name] = round(100 * float(wins.float().mean()), 2)
    return result


def never_names_a_species() -> None:
    """Stop if a caption could say which of the look-alikes a bird is."""
    told = {word for forms in FORMS.values() for form in forms for word in split_words(form)}
    told |= {word for i in range(SPECIES_LIMIT) for word in split_words(species(i).name)}
    said = {w for text in (_FINE[BIRD], *_PART_WORDS.values(), *_WHERE) for w in split_words(text)}
    # All birds have these; only which form they have tells one from another.
    if both := (told & said) - {*MARKS, "two"}:
        raise SystemExit(f"captions of birds may name marks: {sorted(both)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the teacher")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--birds", type=int, default=40, help="photos of each of 64 species")
    parser.add_argument("--things", type=int, default=240, help="pictures of each other kind")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--test-only", action="store_true", help="test what --out holds already")
    options = parser.parse_args()
    torch.set_num_threads(1)
    never_names_a_species()
    if not options.test_only:
        began = time.process_time()
        towers = train(options)
        towers.save(options.out)
        told = {"steps": options.steps, "batch": BATCH}
        told["cpu_seconds"] = round(time.process_time() - began, 1)
        (options.out / "train.json").write_text(json.dumps(told))
    teacher = SmallTeacher.load(str(options.out))
    towers = Towers.load(options.out)
    torch.manual_seed(1)
    blank = SmallTeacher(Towers(towers.config))
    test = pictures(8, 60, TEST_SEED)
    plain = {"jitter_probability": 0.0, "gray": 0.0, "blur": 0.0}
    looks = {
        "plain_crops": ViewSpec(size=SIZE, scale=(0.06, 1.0), **plain),
        "views_of_moco": ViewSpec(size=SIZE),
    }
    birds, own = text_bank("birds"), TextBank.read(OWN_TEXTS)
    banks = {
        "aviary_texts, 8": own.select(8),
        "birds, 8": birds.select(8),
        "birds, 8 coarse": birds.select(8, "coarse"),
        "birds, 16": birds.select(16),
        "birds, 2": birds.select(2),
    }
    seen = {name: look(teacher, test, spec) for name, spec in looks.items()}
    result = {
        "note": "percent of held-out crops on which the relevant text wins (bird) or loses",
        "train": json.loads((options.out / "train.json").read_text()),
        "teacher": {
            "parameters": sum(parameter.numel() for parameter in towers.parameters()),
            "words": len(towers.config.words),
            "scale": round(teacher.scale, 2),
        },
        "crops": {name: dict(Counter(crops.names.tolist())) for name, crops in seen.items()},
        "held_out": {
            name: {bank: examine(teacher, crops, texts) for bank, texts in banks.items()}
            for name, crops in seen.items()
        },
        "bird_wins_on_whole_photos": {
            bank: elsewhere(teacher, banks[bank]) for bank in ("aviary_texts, 8", "birds, 8")
        },
        "untrained": examine(blank, look(blank, test, looks["plain_crops"]), own.select(8)),
    }
    print(json.dumps(result, indent=2))
    print(record("aviary_teacher", result))


if __name__ == "__main__":
    main()
