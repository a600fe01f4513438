"""Texts of others stay texts, and everybody can use every view."""

from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import expect

from fieldmark.index.places import open_index
from fieldmark.workflows.index import index_photos
from serving import Running, wait_for

pytestmark = pytest.mark.page
VIEWS = ("explore", "search", "label", "species", "train")
AXE = Path(__file__).parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"

ATTACKS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    '"><script>alert(1)</script>',
    "'><img src=x onerror=alert(1)>",
    "javascript:alert(1)",
    "</title><script>alert(1)</script>",
    "{{constructor.constructor('alert(1)')()}}",
    "${alert(1)}",
    "<iframe srcdoc='<script>alert(1)</script>'>",
    "<a href=javascript:alert(1)>x</a>",
    "<details open ontoggle=alert(1)>",
    "<style>@import'//x'</style>",
    "<base href=//evil.example/>",
    "<meta http-equiv=refresh content=0;url=//evil.example>",
    "<body onload=alert(1)>",
    "<math><mi xlink:href=javascript:alert(1)>x",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "\u202egpj.exe",
    "<input autofocus onfocus=alert(1)>",
)


@pytest.fixture
def hostile(birds, tmp_path):
    """Photos whose names, labels, EXIF texts and metadata would all like to be code."""
    photos = tmp_path / "photos"
    good = sorted((birds / "photos" / "images").rglob("*.*"))
    facts = ["path,note"]
    for number, attack in enumerate(ATTACKS):
        folder = photos / (attack.replace("/", "∕")[:80] or "x")
        folder.mkdir(parents=True)
        for copy in range(2):
            with Image.open(good[number * 2 + copy]) as image:
                exif = Image.Exif()
                exif[0x010E] = exif[0x013B] = exif[0x9286] = attack
                name = f"{attack.replace('/', '∕')[:80]}{copy}.jpg"
                image.convert("RGB").save(folder / name, exif=exif)
            text = f"{folder.name}/{name}".replace('"', '""')
            note = attack.replace('"', '""')
            facts.append(f'"{text}","{note}"')
    table = tmp_path / "facts.csv"
    table.write_text("\n".join(facts))
    index_photos(birds / "encoder", photos, tmp_path / "index", facts=table)
    running = Running(tmp_path / "index", "--photos", photos).start()
    yield running
    running.stop()


def test_no_text_becomes_code(hostile, open_page):
    # open_page fails the test on any dialog, error of the page or breach of its security policy.
    page = open_page(f"{hostile.url}/explore")
    for view in VIEWS:
        page.goto(f"{hostile.url}/{view}")
        page.wait_for_timeout(1200)
    keys = hostile.get("/api/v1/table")["keys"]
    assert len(keys) == 2 * len(ATTACKS)
    for label in [one["name"] for one in hostile.get("/api/v1/labels")["labels"]][::4]:
        page.goto(f"{hostile.url}/species")
        page.get_by_placeholder("Look for a label").fill(label)
        page.wait_for_timeout(200)
    page.goto(f"{hostile.url}/explore")
    page.get_by_role("option").first.dblclick()
    page.wait_for_timeout(800)
    for tag in ("script", "iframe", "base"):
        assert (
            page.evaluate(f"document.querySelectorAll('{tag}:not([src^=\"/assets\"])').length") == 0
        )


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("view", [*VIEWS, "help", "photo", "chosen"])
def test_every_view_can_be_used_by_everybody(service, open_page, view, dark):
    page = open_page(f"{service.url}/{view if view in VIEWS else 'explore'}", dark=dark)
    page.wait_for_timeout(2500)
    if view == "help":
        page.keyboard.press("?")
    elif view == "photo":
        page.get_by_role("listbox", name="Photos").focus()
        page.keyboard.press("Enter")
    elif view == "chosen":
        page.get_by_role("listbox", name="Photos").focus()
        page.keyboard.press("Space")
    page.wait_for_timeout(700)
    # Injected by the test itself, past the page's security policy.
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run({resultTypes: ['violations']})")
    serious = [
        f"{one['id']}: {one['nodes'][0]['html'][:200]}"
        for one in found["violations"]
        if one["impact"] in {"serious", "critical"}
    ]
    assert serious == []


def test_a_token_is_asked_for_and_never_shown(birds, copy, tmp_path, open_page):
    from fieldmark.app.tokens import Scope, add_token

    tokens = tmp_path / "tokens.toml"
    secret = add_token(tokens, "Ida", Scope.label)
    running = Running(copy, "--photos", birds / "photos" / "images", "--tokens", tokens).start()
    try:
        page = open_page(f"{running.url}/explore")
        field = page.get_by_role("dialog").locator("input")
        field.fill("wrong")
        field.press("Enter")
        expect(page.get_by_role("dialog")).to_be_visible()
        field.fill(secret)
        field.press("Enter")
        expect(page.get_by_role("listbox", name="Photos").locator("img").first).to_be_visible()
        assert secret not in page.url
        assert secret not in page.evaluate("JSON.stringify([localStorage, sessionStorage])")
        with open_index(copy) as index:
            before = index.history()
        page.get_by_role("listbox", name="Photos").focus()
        page.keyboard.press("Space")
        page.keyboard.press("l")
        page.keyboard.type("by Ida")
        page.keyboard.press("Enter")

        def said():
            with open_index(copy) as index:
                return index.history()[len(before) :]

        assert wait_for(said)[-1].by == "Ida"
    finally:
        running.stop()
