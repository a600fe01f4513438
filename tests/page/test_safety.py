"""Texts of others stay texts, and everybody can use every view."""

import json
import shutil
from functools import partial
from urllib.parse import quote

import pytest
from PIL import Image
from playwright.sync_api import expect

from fieldmark.app.tokens import Scope, add_token, remove_token
from fieldmark.index.places import open_index
from fieldmark.workflows.index import index_photos
from looking import serious
from serving import Running, wait_for

pytestmark = pytest.mark.page

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
    "<IMG SRC=`javascript:alert(1)`>",
    '" onmouseover="alert(1)" x="',
    "' onfocus='alert(1)' autofocus='",
    "` onerror=alert(1) src=x `",
    "--><img src=x onerror=alert(1)>",
    "]]><img src=x onerror=alert(1)>",
    "</textarea><img src=x onerror=alert(1)>",
    "</style><img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "<object data=javascript:alert(1)>",
    "<embed src=javascript:alert(1)>",
    "<form action=javascript:alert(1)><button>x</button></form>",
    "<video><source onerror=alert(1)></video>",
    "<select autofocus onfocus=alert(1)></select>",
    "<marquee onstart=alert(1)>x</marquee>",
    "<svg><animate onbegin=alert(1) attributeName=x dur=1s>",
    "<svg><a xlink:href=javascript:alert(1)><text>x</text></a></svg>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "\\u003cimg src=x onerror=alert(1)\\u003e",
    "__proto__",
)

INTRUDERS = """() => [...document.querySelectorAll("*")].filter((one) =>
  [...one.attributes].some((a) => /^on/i.test(a.name)
    || (/^(xlink:)?(href|src|action|data|formaction)$/i.test(a.name) && /^\\W*javascript:/i.test(a.value)))
  || one.matches("iframe,base,object,embed,math,marquee,video,source,animate,meta[http-equiv],"
    + "script:not([src^='/assets/']),style,link:not([href^='/assets/']),img[src='x']")
).map((one) => one.outerHTML.slice(0, 200))"""
"""Elements that the page never makes: what a text became if it was taken for code."""


def plain(attack):
    """As the name of a file."""
    return attack.replace("/", "∕")


@pytest.fixture(scope="module")
def hostile(birds, tmp_path_factory):
    """Photos whose names, labels, EXIF texts and metadata would all like to be code."""
    root = tmp_path_factory.mktemp("hostile")
    photos = root / "photos"
    good = sorted((birds / "photos" / "images").rglob("*.*"))
    facts, labels = ["path,note"], {}
    for number, attack in enumerate(ATTACKS):
        folder = photos / f"{number:02}{plain(attack)}"
        folder.mkdir(parents=True)
        for copy in range(2):
            with Image.open(good[number * 2 + copy]) as image:
                exif = Image.Exif()
                exif[0x010E] = exif[0x013B] = exif[0x9286] = attack
                name = f"{plain(attack)}{copy}.jpg"
                image.convert("RGB").save(folder / name, exif=exif)
            key, note = (text.replace('"', '""') for text in (f"{folder.name}/{name}", attack))
            facts.append(f'"{key}","{note}"')
            labels[f"{folder.name}/{name}"] = attack
    table = root / "facts.csv"
    table.write_text("\n".join(facts), encoding="utf-8")
    index_photos(birds / "encoder", photos, root / "index", facts=table)
    with open_index(root / "index") as index:
        index.set_labels(labels, by="<img src=x onerror=alert(1)>")
    running = Running(root / "index", "--photos", photos).start()
    yield running, list(labels)
    running.stop()


def to(page, address):
    """Go to a view without loading the page again."""
    page.evaluate(
        "(to) => { history.pushState(null, '', to); dispatchEvent(new PopStateEvent('popstate')); }",
        address,
    )


def photos_of(page):
    return page.get_by_role("listbox", name="Photos")


def choose_first(page):
    photos_of(page).focus()
    page.keyboard.press("Home")
    page.keyboard.press("Space")
    expect(page.get_by_role("region", name="Chosen photos")).to_contain_text("1 chosen")


def test_the_search_for_intruders_finds_them(browser):
    page = browser.new_page()
    found = []
    for attack in ATTACKS:
        page.set_content("<p></p>")
        page.evaluate("(text) => document.querySelector('p').innerHTML = text", attack)
        if page.evaluate(INTRUDERS):
            found.append(attack)
    page.close()
    # The others are code in attributes, scripts, titles or templates only.
    assert len(found) >= 24


def test_no_text_becomes_code(hostile, open_page):
    # open_page fails the test on any dialog, error of the page or breach of its security policy.
    running, keys = hostile
    page = open_page(f"{running.url}/explore")
    main = page.get_by_role("main")
    expect(photos_of(page).get_by_role("option").first).to_be_visible()
    attack, image = ATTACKS[1], quote(keys[2])

    def seen(address, *, text=attack, within=main):
        to(page, address)
        expect(within.get_by_text(text).locator("visible=true").first).to_be_visible()
        page.wait_for_timeout(150)
        assert page.evaluate(INTRUDERS) == [], address

    seen("/explore")
    # The photo on its own: its file, label, note, history and who wrote that.
    photo = page.get_by_role("dialog")
    for key in keys[::2]:
        to(page, f"/explore?photo={quote(key)}")
        expect(photo.locator(".large-facts")).to_contain_text(key)
        assert page.evaluate(INTRUDERS) == [], key
    seen(f"/explore?photo={image}", within=photo.locator(".large-history"))
    expect(photo.locator(".large-facts")).to_contain_text(f"note{attack}")
    to(page, "/explore")
    expect(photo).to_have_count(0)
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("#filter-more")).to_be_visible()
    for panel in ("clusters", "outliers", "duplicates"):
        to(page, f"/explore?show={panel}")
        page.wait_for_timeout(400)
        assert page.evaluate(INTRUDERS) == [], panel
    to(page, f"/explore?where={quote(attack)}")
    expect(page.get_by_role("alert").first).to_be_visible()
    to(page, "/explore")
    photos_of(page).focus()
    page.keyboard.press("Home")
    page.keyboard.press("Control+a")
    expect(page.get_by_role("listbox", name="Suggestions")).to_contain_text("alert(1)")
    page.keyboard.press("Escape")
    seen("/species")
    for name in ATTACKS:
        to(page, f"/species?label={quote(name, safe='')}")
        expect(page.locator("#page-title")).to_have_attribute("title", name)
        expect(page.get_by_role("list", name="Typical photos").locator("img").first).to_be_visible()
        assert page.evaluate(INTRUDERS) == [], name
    to(page, f"/species?label={quote(ATTACKS[0])}&vs={quote(attack)}")
    expect(page.locator("#marks-title")).to_contain_text(attack)
    to(page, "/search")
    expect(main.get_by_role("img", name=ATTACKS[2], exact=True).first).to_be_visible()
    assert page.evaluate(INTRUDERS) == []
    seen(f"/search?key={image}")
    seen(f"/search?key={image}&with={quote(keys[0])}")
    seen(f"/search?key={quote(attack)}")
    seen("/label?tab=history")
    for tab in ("next", "sure", "pairs", "suspects", "unknown"):
        to(page, f"/label?tab={tab}")
        page.wait_for_timeout(400)
        assert page.evaluate(INTRUDERS) == [], tab
    # A label that is set by hand is told in a message.
    to(page, "/explore")
    choose_first(page)
    page.keyboard.press("l")
    page.keyboard.type("<q onclick=zebra()>by hand")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").get_by_text("<q onclick=zebra()>by hand")).to_be_visible()
    assert page.evaluate(INTRUDERS) == []
    assert len(running.get("/api/v1/table")["keys"]) == 2 * len(ATTACKS)


def unfold(page):
    """Name the colours of all groups on the map."""
    fold = page.get_by_role("button", name="Meaning of the colours")
    expect(fold).to_be_visible()
    if fold.get_attribute("aria-expanded") == "false":
        fold.click()
    page.locator(".legend-list [aria-expanded]").click()
    expect(page.locator(".legend-all")).to_be_visible()


def leave(page):
    """Close the dialog that is open, if one is."""
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def ask(page, name):
    """Open the dialog behind a button of the view to label."""
    leave(page)
    dialog, button = (
        page.get_by_role("dialog"),
        page.get_by_role("main").get_by_role("button", name=name),
    )
    if not button.is_visible():
        # A phone has room for one of the buttons; its dialog has the other.
        page.get_by_role("main").get_by_role("button", name="Guesses right").click()
        button = dialog.get_by_role("button", name=name)
    button.click()
    expect(dialog).to_be_visible()


def states(page, running):
    """Name each state of the page that matters, and bring the page into it."""
    keys = running.get("/api/v1/table")["keys"]
    first, second = quote(keys[0]), quote(keys[1])
    label = quote(running.get("/api/v1/labels")["labels"][0]["name"])
    main, panel = page.get_by_role("main"), page.locator("#explore-panel")
    dialog = page.get_by_role("dialog")

    def view(address, what):
        to(page, address)
        expect(what.first).to_be_visible(timeout=20_000)

    def press(where, *names):
        where.focus()
        for name in names:
            page.keyboard.press(name)

    yield "explore", partial(view, "/explore", photos_of(page).locator("img"))
    yield (
        "explore, shortcuts",
        lambda: (press(photos_of(page), "?"), expect(dialog).to_be_visible()),
    )
    yield "explore, chosen", lambda: (leave(page), choose_first(page))
    field = page.get_by_role("combobox", name="Label of")
    yield (
        "explore, being labelled",
        lambda: (press(photos_of(page), "l"), press(field, "a"), expect(field).to_have_value("a")),
    )
    yield (
        "explore, filter",
        lambda: (
            press(field, "Escape"),
            press(photos_of(page), "Escape"),
            page.get_by_role("button", name="Filter").click(),
            expect(page.locator("#filter-more")).to_be_visible(),
        ),
    )
    yield "explore, filtered", partial(view, f"/explore?label={label}", photos_of(page))
    yield "explore, bad filter", partial(view, "/explore?where=x", page.get_by_role("alert"))
    yield (
        "explore, map",
        partial(view, "/explore?show=map&colour=cluster", page.locator(".map-field")),
    )
    yield "explore, all colours", partial(unfold, page)
    yield "explore, groups", partial(view, "/explore?show=clusters", panel.locator(".group"))
    yield "explore, outliers", partial(view, "/explore?show=outliers", panel.locator(".cell"))
    yield "explore, duplicates", partial(view, "/explore?show=duplicates", panel.locator(".twin"))
    yield (
        "explore, photo",
        partial(view, f"/explore?photo={first}", page.locator(".large-near img")),
    )
    yield "search", partial(view, "/search", main.locator(".start-photos img"))
    yield "search, found", partial(view, f"/search?key={first}", main.locator(".match-photo"))
    yield (
        "search, box",
        partial(
            view,
            f"/search?key={first}&region=0.3,0.3,0.6,0.6",
            main.get_by_text("The best place of each photo"),
        ),
    )
    yield "search, gone", partial(view, "/search?key=gone", page.get_by_role("alert"))
    yield (
        "compare",
        partial(
            view,
            f"/search?key={first}&with={second}",
            page.get_by_role("complementary", name="Why they are alike").locator("p"),
        ),
    )
    yield "label", partial(view, "/label", main.locator(".choice-main"))
    for name in ("Guesses right", "Download"):
        yield f"label, {name}", partial(ask, page, name)
    leave(page)
    for tab in ("sure", "pairs", "suspects", "unknown", "history"):
        yield f"label, {tab}", partial(view, f"/label?tab={tab}", main.locator(".label-body > *"))
    yield "species", partial(view, "/species", main.locator(".kind img"))
    yield "species, one", partial(view, f"/species?label={label}", main.locator(".plate img"))
    yield "train", partial(view, "/train", page.get_by_role("navigation", name="Runs"))
    runs = page.get_by_role("navigation", name="Runs")
    verdict = page.get_by_role("region", name="Verdict")
    yield (
        "train, finished",
        lambda: (runs.get_by_role("link").first.click(), expect(verdict).to_be_visible()),
    )


@pytest.mark.parametrize("phone", [False, True], ids=["laptop", "phone"])
def test_every_view_can_be_used_by_everybody(shared_service, open_page, phone):
    page = open_page(f"{shared_service.url}/explore", phone=phone)
    page.emulate_media(reduced_motion="reduce")
    wrong, seen = {}, 0
    for name, come in states(page, shared_service):
        come()
        page.wait_for_timeout(150)
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            page.wait_for_function(
                "(to) => document.documentElement.dataset.theme === to", arg=theme
            )
            seen += 1
            if found := serious(page):
                wrong[f"{name}, {theme}"] = found
    assert seen == 2 * 30
    assert wrong == {}, json.dumps(wrong, indent=2)


@pytest.fixture(scope="module")
def guarded(birds, tmp_path_factory):
    """A service with tokens, their file, and the index."""
    root = tmp_path_factory.mktemp("guarded")
    copy, tokens = root / "index", root / "tokens.toml"
    shutil.copytree(birds / "index", copy)
    add_token(tokens, "keeper", Scope.admin)
    photos = birds / "photos" / "images"
    running = Running(copy, "--photos", photos, "--tokens", tokens).start()
    yield running, tokens, copy
    running.stop()


SHOWN = "[...document.querySelectorAll('.grid img')].some((one) => one.naturalWidth > 0)"


def sign_in(page, secret):
    field = page.get_by_role("dialog").locator("input")
    field.fill(secret)
    field.press("Enter")
    expect(page.get_by_role("dialog")).to_have_count(0)
    # Pictures are asked for by the browser itself, with the session's cookie.
    expect(photos_of(page).locator("img").first).to_be_visible()
    wait_for(lambda: page.evaluate(SHOWN))


def test_a_token_is_asked_for_and_never_shown(guarded, open_page):
    running, tokens, place = guarded
    secret = add_token(tokens, "Ida", Scope.label)
    page = open_page(f"{running.url}/explore")
    field = page.get_by_role("dialog").locator("input")
    assert field.get_attribute("type") == "password"
    assert serious(page) == []
    field.fill("wrong")
    field.press("Enter")
    wait_for(lambda: field.evaluate("(one) => one.validationMessage !== ''"))
    expect(page.get_by_role("dialog")).to_be_visible()
    sign_in(page, secret)
    assert secret not in page.url
    assert secret not in page.evaluate("JSON.stringify([localStorage, sessionStorage])")
    assert secret not in page.evaluate("document.documentElement.outerHTML")
    assert page.evaluate("document.cookie") == ""
    [cookie] = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert secret not in cookie["value"]
    with open_index(place) as index:
        before = len(index.history())
    choose_first(page)
    page.keyboard.press("l")
    page.keyboard.type("by Ida")
    with page.expect_response(lambda answer: answer.request.method == "PUT") as answered:
        page.keyboard.press("Enter")
    # Before it has read the answer the page would not be left without a question.
    answered.value.finished()
    page.wait_for_timeout(200)

    def said():
        with open_index(place) as index:
            return index.history()[before:]

    [line] = wait_for(said)
    assert (line.by, line.after) == ("Ida", "by Ida")
    # The next visit needs no token, until Ida goes.
    page.reload()
    expect(photos_of(page).locator("img").first).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("dialog").locator("input")).to_be_visible()
    assert page.context.cookies() == []
    expect(page.locator(".grid img")).to_have_count(0)


def test_a_token_that_is_removed_ends_its_session(guarded, open_page):
    running, tokens, _ = guarded
    page = open_page(f"{running.url}/explore")
    sign_in(page, add_token(tokens, "Bob", Scope.label))
    remove_token(tokens, "Bob")
    page.reload()
    expect(page.get_by_role("dialog").locator("input")).to_be_visible()


def test_who_may_only_look_is_told_so_kindly(guarded, open_page):
    running, tokens, place = guarded
    page = open_page(f"{running.url}/explore")
    sign_in(page, add_token(tokens, "Guest", Scope.read))
    with open_index(place) as index:
        before = len(index.history())
    choose_first(page)
    chosen = page.get_by_role("region", name="Chosen photos")
    expect(chosen).to_contain_text("Your token allows to look, not to label")
    expect(chosen.locator("input")).to_have_count(0)
    to(page, "/label")
    expect(page.get_by_text("Your token does not allow to label")).to_be_visible()
    choice = page.get_by_role("region", name="What it may be").locator(".choice-main").first
    expect(choice).to_be_disabled()
    page.keyboard.press("1")
    page.wait_for_timeout(500)
    to(page, "/label?tab=sure")
    sure = page.get_by_role("listbox", name="Photos that are probably")
    expect(sure.get_by_role("option").first).to_be_visible()
    expect(sure.locator("[aria-selected=true]")).to_have_count(0)
    with open_index(place) as index:
        assert len(index.history()) == before
