"""What people do on the page, from the first click to what the index then holds."""

import json
import re
import time

import pytest
from playwright.sync_api import expect

from looking import serious
from serving import Running, wait_for

pytestmark = pytest.mark.page


def grid(page):
    return page.get_by_role("listbox", name="Photos")


def choose(page, count):
    """Choose the first photos of the grid by the keyboard."""
    expect(grid(page).get_by_role("option").first).to_be_visible()
    grid(page).focus()
    page.keyboard.press("Home")
    page.keyboard.press("Space")
    for _ in range(count - 1):
        page.keyboard.press("Shift+ArrowRight")
    expect(page.get_by_role("region", name="Chosen photos")).to_contain_text(f"{count} chosen")


def write_label(page, name):
    page.keyboard.press("l")
    page.keyboard.type(name)
    page.keyboard.press("Enter")


def named(running):
    return {one["name"]: one["photos"] for one in running.get("/api/v1/labels")["labels"]}


def test_photos_drawn_around_on_the_map_are_labelled_and_the_label_is_taken_back(
    service, open_page
):
    page = open_page(f"{service.url}/explore")
    expect(grid(page).get_by_role("option").first).to_be_visible()
    page.get_by_role("button", name="Draw around photos").click()
    field = page.locator(".map-field").bounding_box()
    x0, y0 = field["x"] + 8, field["y"] + 8
    x1, y1 = field["x"] + field["width"] - 8, field["y"] + field["height"] - 8
    around = [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0 + 2)]
    page.mouse.move(*around[0])
    page.mouse.down()
    for point in around[1:]:
        page.mouse.move(*point, steps=8)
    page.mouse.up()
    chosen = page.get_by_role("region", name="Chosen photos")
    expect(chosen).to_contain_text("chosen")
    count = int(chosen.locator(".chosen-count").inner_text().split()[0])
    assert count > 70  # of 144: nearly all of the map is inside
    write_label(page, "seen from above")
    wait_for(lambda: named(service).get("seen from above") == count)
    page.keyboard.press("Escape")
    page.keyboard.press("Control+z")
    wait_for(lambda: "seen from above" not in named(service))


def test_the_whole_set_is_classified_again_after_a_label(service, open_page):
    page = open_page(f"{service.url}/explore")
    expect(grid(page).get_by_text("%").first).to_be_visible()
    choose(page, 12)
    write_label(page, "brand new kind")
    # A guess, of other photos than those that were labelled: the first half of their kind.
    page.keyboard.press("Escape")
    guessed = grid(page).get_by_role("option", name=re.compile("^brand new kind .*a guess,"))
    expect(guessed.first).to_be_visible()


def test_a_filter_in_the_address_is_shown_and_a_wrong_one_is_explained(shared_service, open_page):
    page = open_page(f"{shared_service.url}/explore?where=label%20is%20not%20null")
    labelled = sum(named(shared_service).values())
    assert labelled < len(shared_service.labels())
    expect(page.locator(".filter-count strong")).to_have_text(str(labelled))
    page = open_page(f"{shared_service.url}/explore?where=label%20~~%203")
    expect(page.get_by_role("alert").first).to_be_visible()


def test_a_photo_is_searched_by_a_part_and_compared(shared_service, birds, open_page):
    photo = sorted((birds / "photos" / "images").rglob("*.*"))[3]
    page = open_page(f"{shared_service.url}/search")
    page.get_by_label("Photo to look for").first.set_input_files(photo)
    matches = page.get_by_role("region", name="Matches")
    expect(matches.locator(".match-photo").first).to_be_visible()
    expect(matches).to_contain_text("most alike")
    # It is in the index itself: the first match is the same photo.
    assert "similarity 1.00" in matches.locator(".match-photo").first.get_attribute("aria-label")
    stage = (
        page.get_by_role("region", name="What is looked for").locator("img").first.bounding_box()
    )
    page.mouse.move(stage["x"] + stage["width"] * 0.35, stage["y"] + stage["height"] * 0.3)
    page.mouse.down()
    page.mouse.move(stage["x"] + stage["width"] * 0.65, stage["y"] + stage["height"] * 0.6, steps=6)
    page.mouse.up()
    expect(matches).to_contain_text("best place of each photo")
    matches.locator(".match-photo").nth(2).click()
    expect(page.get_by_role("complementary", name="Why they are alike")).to_be_visible(
        timeout=60_000
    )


def test_labelling_by_keyboard_alone(service, open_page):
    before = sum(named(service).values())
    page = open_page(f"{service.url}/label")
    side = page.get_by_role("region", name="What it may be")
    expect(side.locator(".choice-main").first).to_be_visible()
    # At once: a key is heard as soon as one sees what it does.
    page.keyboard.press("1")
    wait_for(lambda: sum(named(service).values()) == before + 1)
    expect(side.locator(".choice-main").first).to_be_visible()
    page.keyboard.press("s")
    expect(side).to_contain_text("Skipped")
    page.keyboard.press("z")
    page.keyboard.press("z")
    wait_for(lambda: sum(named(service).values()) == before)
    history = service.get("/api/v1/labels/changes?since=0")["changes"]
    assert [one["after"] is None for one in history[-2:]] == [False, True]


def test_two_people_at_once_lose_nothing(service, open_page):
    first, second = (open_page(f"{service.url}/explore", deaf=deaf) for deaf in (False, True))
    choose(first, 1)
    choose(second, 1)
    write_label(first, "said by the first")
    wait_for(lambda: named(service).get("said by the first") == 1)
    write_label(second, "said by the second")
    expect(second.get_by_text("nothing was overwritten")).to_be_visible(timeout=30_000)
    assert named(service).get("said by the first") == 1
    second.get_by_role("button", name="Look", exact=True).click()
    assert serious(second) == []
    second.get_by_role("button", name="Set mine").first.click()
    wait_for(lambda: named(service).get("said by the second") == 1)
    expect(grid(first).get_by_role("option").first).to_have_accessible_name(
        re.compile("^said by the second")
    )


def test_the_page_recovers_when_the_service_is_killed_and_comes_back(service, open_page):
    page = open_page(f"{service.url}/explore")
    choose(page, 2)
    service.kill()
    write_label(page, "said in the dark")
    expect(page.get_by_text("wait for the service").first).to_be_visible()
    service.start()
    wait_for(lambda: named(service).get("said in the dark") == 2, 40)
    expect(page.get_by_text("wait for the service")).to_have_count(0, timeout=30_000)


def test_a_species_has_a_page_with_its_look_alike(shared_service, open_page):
    name = max(named(shared_service).items(), key=lambda one: one[1])[0]
    page = open_page(f"{shared_service.url}/species")
    page.get_by_placeholder("Look for a label").fill(name[:6])
    page.get_by_role("main").get_by_role("link", name=name[3:9]).first.click()
    expect(page.get_by_role("list", name="Typical photos").locator("img").first).to_be_visible()


def test_a_card_does_not_lie_over_the_line_that_is_drawn(shared_service, open_page):
    page = open_page(f"{shared_service.url}/explore")
    field, card = page.locator(".map-field"), page.locator(".map-card")
    expect(page.locator(".map-sketch")).to_have_count(0)
    expect(page.locator(".map-thumb-frame").first).to_be_visible()
    box = field.bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    thumb = page.locator(".map-thumb-frame").first.bounding_box()
    page.mouse.move(*middle)
    page.mouse.move(thumb["x"] + thumb["width"] / 2, thumb["y"] + thumb["height"] / 2, steps=3)
    expect(card).to_be_visible()
    page.keyboard.down("Shift")
    page.mouse.down()
    page.mouse.move(*middle, steps=4)
    expect(page.locator(".map-line path")).to_have_attribute("d", re.compile("^M"))
    expect(card).to_have_count(0)
    page.mouse.up()
    page.keyboard.up("Shift")


def test_a_large_photo_begins_at_its_close_button(shared_service, open_page):
    page = open_page(f"{shared_service.url}/explore")
    expect(grid(page).get_by_role("option").first).to_be_visible()
    grid(page).focus()
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    large = page.get_by_role("dialog")
    close = large.get_by_role("button", name="Close")
    expect(close).to_be_focused()
    # The keys that leaf go on after the last photo, and after the field of the label was left.
    large.get_by_role("button", name="Next photo").click()
    large.get_by_role("button", name="Photo before").click()
    expect(large.get_by_role("button", name="Photo before")).to_have_count(0)
    expect(close).to_be_focused()
    page.keyboard.press("l")
    page.keyboard.press("Escape")
    expect(close).to_be_focused()
    page.keyboard.press("Escape")
    expect(large).to_have_count(0)
    expect(grid(page)).to_be_focused()


def test_the_bar_of_chosen_photos_is_one_line_on_a_phone(service, open_page):
    page = open_page(f"{service.url}/explore", phone=True)
    choose(page, 3)
    bar = page.get_by_role("region", name="Chosen photos")
    assert bar.bounding_box()["height"] < 64
    bar.get_by_role("button", name="Label", exact=True).click()
    expect(bar.get_by_role("combobox")).to_be_visible()
    assert bar.bounding_box()["height"] < 844 / 4
    bar.get_by_role("combobox").fill("by hand")
    page.keyboard.press("Enter")
    wait_for(lambda: named(service).get("by hand") == 3)
    expect(bar).to_have_count(0)


def test_a_run_is_watched_until_its_verdict(open_page, tmp_path):
    folder = tmp_path / "runs" / "birds"
    folder.mkdir(parents=True)
    line = {"kind": "train", "step": 1, "epoch": 0.1, "loss": 3.0, "grad_norm": 1.0, "lr": 0.01}
    (folder / "run.json").write_text(json.dumps({"recipe": "fieldmark"}))
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    running = Running(tmp_path / "runs").start()
    try:
        page = open_page(f"{running.url}/train")
        expect(page.get_by_text("birds").first).to_be_visible()
        with (folder / "metrics.jsonl").open("a") as log:
            log.write(json.dumps(line | {"step": 2, "epoch": 0.2, "loss": 2.5}) + "\n")
        expect(page.get_by_text("2.5").first).to_be_visible(timeout=30_000)
    finally:
        running.stop()


@pytest.mark.parametrize("view", ["explore", "search", "label", "species", "train"])
def test_nothing_is_wider_than_a_phone(shared_service, open_page, view):
    page = open_page(f"{shared_service.url}/{view}", phone=True)
    page.wait_for_timeout(1500)
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 390
    box = page.get_by_role("navigation", name="Views").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 391


def test_photos_are_on_the_page_soon(shared_service, open_page):
    began = time.perf_counter()
    page = open_page(f"{shared_service.url}/explore")
    expect(grid(page).locator("img").first).to_be_visible()
    assert time.perf_counter() - began < 10
