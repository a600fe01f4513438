"""Draws docs/pictures/*.svg: each method as boxes and arrows.

    python docs/pictures.py

Blue learns by gradient, grey follows or stays, orange is what ships, red is a loss.
"""

from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

FILL = {
    "photo": ("#ffffff", "#8a8f98"),
    "learns": ("#dbe9fb", "#2f6fc4"),
    "follows": ("#eceef1", "#8a8f98"),
    "ships": ("#fdebd3", "#d07a1c"),
    "loss": ("#fbdedb", "#c4403a"),
    "data": ("#ffffff", "#c3c7cd"),
}
W, H = 148, 44


class Box(NamedTuple):
    column: float
    row: float
    kind: str
    text: str
    note: str = ""


class Picture(NamedTuple):
    boxes: dict[str, Box]
    arrows: list[tuple[str, str, str]]
    """From, to, and ``solid`` (forward), ``dashed`` (follows, no gradient) or ``red`` (gradient)."""


def siamese(student: str, teacher: str, *, rows: tuple[float, float] = (0, 2)) -> dict[str, Box]:
    top, bottom = rows
    return {
        "photo": Box(0, (top + bottom) / 2, "photo", "photo"),
        "one": Box(1, top, "data", "view 1"),
        "two": Box(1, bottom, "data", "view 2"),
        "student": Box(2, top, "ships", "encoder", student),
        "teacher": Box(2, bottom, "follows", "teacher", teacher),
    }


BASIC = [
    ("photo", "one", "solid"),
    ("photo", "two", "solid"),
    ("one", "student", "solid"),
    ("two", "teacher", "solid"),
    ("student", "teacher", "dashed"),
]

PICTURES = {
    "house": Picture(
        {
            "photo": Box(0, 1, "photo", "photo"),
            "large": Box(1, 0, "data", "8 large crops", "two inputs, mirrored too"),
            "small": Box(1, 2, "data", "small crop"),
            "teacher": Box(2, 0, "follows", "the start", "frozen, asked once"),
            "student": Box(2, 2, "ships", "encoder", "learns, begins there"),
            "bank": Box(3, 0, "data", "one vector per photo", "shared with neighbours"),
            "white": Box(3, 2, "follows", "the same whitening"),
            "loss": Box(4, 1, "loss", "1 − cosine", "small says what large says"),
        },
        [
            ("photo", "large", "solid"),
            ("photo", "small", "solid"),
            ("large", "teacher", "solid"),
            ("small", "student", "solid"),
            ("teacher", "bank", "solid"),
            ("student", "white", "solid"),
            ("bank", "loss", "solid"),
            ("white", "loss", "solid"),
        ],
    ),
    "mocov2": Picture(
        {
            **siamese("learns", "average of it"),
            "head": Box(3, 0, "learns", "head", "query"),
            "key": Box(3, 2, "follows", "head", "key"),
            "queue": Box(4, 2, "data", "queue", "other photos' keys"),
            "loss": Box(4, 0, "loss", "InfoNCE", "own key against all"),
        },
        [
            *BASIC,
            ("student", "head", "solid"),
            ("teacher", "key", "solid"),
            ("head", "loss", "solid"),
            ("key", "loss", "solid"),
            ("queue", "loss", "solid"),
            ("key", "queue", "dashed"),
        ],
    ),
    "mocov3": Picture(
        {
            **siamese("learns", "average of it"),
            "head": Box(3, 0, "learns", "projector,", "predictor"),
            "key": Box(3, 2, "follows", "projector"),
            "loss": Box(4, 1, "loss", "InfoNCE", "in the batch, both ways"),
        },
        [
            *BASIC,
            ("student", "head", "solid"),
            ("teacher", "key", "solid"),
            ("head", "loss", "solid"),
            ("key", "loss", "solid"),
        ],
    ),
    "simclr": Picture(
        {
            "photo": Box(0, 1, "photo", "photo"),
            "one": Box(1, 0, "data", "view 1"),
            "two": Box(1, 2, "data", "view 2"),
            "student": Box(2, 1, "ships", "encoder", "learns, sees both"),
            "head": Box(3, 1, "learns", "head"),
            "loss": Box(4, 1, "loss", "NT-Xent", "partner in the batch"),
        },
        [
            ("photo", "one", "solid"),
            ("photo", "two", "solid"),
            ("one", "student", "solid"),
            ("two", "student", "solid"),
            ("student", "head", "solid"),
            ("head", "loss", "solid"),
        ],
    ),
    "lcr": Picture(
        {
            **siamese("learns", "average of it", rows=(1, 3)),
            "map": Box(3, 1, "data", "last map F"),
            "loss": Box(4, 2, "loss", "contrast", "any of the three above"),
            "cam": Box(4, 0, "data", "gradient map", "ReLU(Σ F · dL/dF)"),
            "attention": Box(3, 0, "ships", "attention A", "max of 32 looks"),
            "fit": Box(5, 0, "loss", "KL", "A fits the map"),
            "pooled": Box(2, 0, "ships", "feature", "average of A · F"),
        },
        [
            *BASIC,
            ("student", "map", "solid"),
            ("map", "loss", "solid"),
            ("teacher", "loss", "solid"),
            ("loss", "cam", "red"),
            ("map", "attention", "solid"),
            ("attention", "pooled", "solid"),
            ("cam", "fit", "solid"),
            ("attention", "fit", "arc"),
        ],
    ),
    "msam": Picture(
        {
            "photo": Box(0, 2, "photo", "photo"),
            "one": Box(1, 1, "data", "view 1"),
            "two": Box(1, 3, "data", "view 2"),
            "student": Box(2, 1, "ships", "encoder", "with modules"),
            "teacher": Box(2, 3, "follows", "teacher", "average of both"),
            "module": Box(2, 0, "ships", "x + γ Σ αᵢ Fᵢ", "4 scales, between stages"),
            "loss": Box(4, 1, "loss", "InfoNCE", "own key against 64"),
            "head": Box(3, 1, "learns", "head", "query"),
            "key": Box(3, 3, "follows", "head", "key"),
            "queue": Box(4, 3, "data", "64 keys"),
        },
        [
            *BASIC,
            ("module", "student", "solid"),
            ("student", "head", "solid"),
            ("teacher", "key", "solid"),
            ("head", "loss", "solid"),
            ("key", "loss", "solid"),
            ("queue", "loss", "solid"),
        ],
    ),
    "ppssl": Picture(
        {
            **siamese("learns", "average of it", rows=(2, 4)),
            "loss": Box(3, 3, "loss", "contrast", "any of the three above"),
            "cam": Box(1, 1, "data", "gradient map", "of the image itself"),
            "attention": Box(3, 2, "ships", "attention A", "max of 32 looks"),
            "iadm": Box(3, 1, "loss", "IADM", "A fits the map"),
            "ais": Box(5, 1, "loss", "AIS", "KL of text logits"),
            "clip": Box(5, 0, "follows", "text-image teacher", "1 relevant, 7 other texts"),
            "pooled": Box(4, 2, "ships", "feature", "average of A · F"),
        },
        [
            *BASIC,
            ("student", "attention", "solid"),
            ("student", "loss", "solid"),
            ("teacher", "loss", "solid"),
            ("one", "cam", "red"),
            ("cam", "iadm", "solid"),
            ("attention", "iadm", "solid"),
            ("attention", "pooled", "solid"),
            ("pooled", "ais", "solid"),
            ("clip", "ais", "solid"),
        ],
    ),
    "lodisc": Picture(
        {
            **siamese("learns", "average of it", rows=(0, 2)),
            "head": Box(3, 0, "learns", "projector,", "predictor"),
            "key": Box(3, 2, "follows", "projector"),
            "global": Box(4, 1, "loss", "global", "other view's key"),
            "mask": Box(2, 3, "data", "salient 30 %", "of the teacher's attention"),
            "again": Box(3, 3, "follows", "teacher", "sees only these"),
            "local": Box(4, 3, "loss", "local", "other view's key"),
        },
        [
            *BASIC,
            ("student", "head", "solid"),
            ("teacher", "key", "solid"),
            ("teacher", "mask", "solid"),
            ("mask", "again", "solid"),
            ("head", "global", "solid"),
            ("key", "global", "solid"),
            ("head", "local", "solid"),
            ("again", "local", "solid"),
        ],
    ),
}


def centre(box: Box) -> tuple[float, float]:
    return 20 + W / 2 + box.column * (W + 46), 20 + H / 2 + box.row * (H + 22)


def draw(picture: Picture) -> str:
    places = {name: centre(box) for name, box in picture.boxes.items()}
    width = max(x for x, _ in places.values()) + W / 2 + 20
    height = max(y for _, y in places.values()) + H / 2 + 20
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" font-family="system-ui, sans-serif" font-size="13">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto-start-reverse"><path d="M0 0L8 4L0 8z" '
        'fill="context-stroke"/></marker></defs>',
        f'<rect width="{width:g}" height="{height:g}" rx="10" fill="#fafbfc"/>',
    ]
    out += [arrow(places[a], places[b], how) for a, b, how in picture.arrows]
    for name, box in picture.boxes.items():
        fill, edge = FILL[box.kind]
        x, y = places[name]
        out.append(
            f'<rect x="{x - W / 2:g}" y="{y - H / 2:g}" width="{W}" height="{H}" rx="8" '
            f'fill="{fill}" stroke="{edge}" stroke-width="1.4"/>'
        )
        first = y - 4 if box.note else y + 4.5
        out.append(
            f'<text x="{x:g}" y="{first:g}" text-anchor="middle" fill="#1d2430">'
            f"{escape(box.text)}</text>"
        )
        if box.note:
            out.append(
                f'<text x="{x:g}" y="{y + 13:g}" text-anchor="middle" font-size="10.5" '
                f'fill="#5a6270">{escape(box.note)}</text>'
            )
    return "\n".join([*out, "</svg>"]) + "\n"


def arrow(start: tuple[float, float], end: tuple[float, float], how: str) -> str:
    (x0, y0), (x1, y1) = start, end
    sideways = abs(x1 - x0) > W / 2
    if sideways:
        step = 1 if x1 > x0 else -1
        x0, x1 = x0 + step * W / 2, x1 - step * (W / 2 + 2)
        middle = (x0 + x1) / 2
        path = f"M{x0:g} {y0:g}C{middle:g} {y0:g} {middle:g} {y1:g} {x1:g} {y1:g}"
    else:
        step = 1 if y1 > y0 else -1
        y0, y1 = y0 + step * H / 2, y1 - step * (H / 2 + 2)
        path = f"M{x0:g} {y0:g}L{x1:g} {y1:g}"
    if how == "arc":
        y0, y1 = start[1] - H / 2, end[1] - H / 2 - 2
        x0, x1 = start[0], end[0]
        path = f"M{x0:g} {y0:g}C{x0:g} {y0 - 24:g} {x1:g} {y1 - 22:g} {x1:g} {y1:g}"
    colour = "#c4403a" if how == "red" else "#5a6270"
    dash = ' stroke-dasharray="5 4"' if how in {"dashed", "red"} else ""
    return f'<path d="{path}" fill="none" stroke="{colour}"{dash} marker-end="url(#tip)"/>'


def main() -> None:
    folder = Path(__file__).parent / "pictures"
    folder.mkdir(exist_ok=True)
    for name, picture in PICTURES.items():
        (folder / f"{name}.svg").write_text(draw(picture), encoding="utf-8")


if __name__ == "__main__":
    main()
