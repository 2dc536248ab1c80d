"""The demo in a real browser, as a visitor uses it: `make test-e2e` installs what this needs.

DOVE_SCREENSHOTS, where it is set, names a folder for pictures of the page.
"""

import os
import re
import runpy
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("gradio")
sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium; on Debian: apt-get install chromium"),
]
PATIENCE = float(os.environ.get("DOVE_E2E_PATIENCE", "60")) * 1000
"""Milliseconds until something that should appear has not."""
SCENE = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "scene.py"))


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page of the shipped tokenizers and of an untrained one that takes queries, at any free port."""
    from dove.demo.page import Demo, launch
    from dove.query.config import QDoveConfig, QueryConfig
    from dove.query.tokenizer import QDove
    from dove.registry import load_tokenizer
    from dove.tokenizer import Dove

    dove = Dove.from_pretrained("dove-tiny")
    query = QueryConfig(tokenizer="tiny", vocab_size=1000, max_length=8)
    asked = QDove(QDoveConfig(**vars(dove.config), query=query)).eval()
    asked.load_state_dict(dove.state_dict(), strict=False)
    models = {"dove-tiny": dove, "cosines": load_tokenizer("cosines"), "asked": asked}
    demo = Demo(models=models, folder=tmp_path_factory.mktemp("files"))
    page, found = launch(demo, host="127.0.0.1", port=0, max_megabytes=1)
    yield found
    page.close(verbose=False)


@contextmanager
def visit(address: str, width: int = 1280, scheme: str = "light") -> Iterator["sync_api.Page"]:
    """The page in a browser that reaches this address alone; that nothing else was asked for is checked at the end."""
    asked: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.set_default_timeout(PATIENCE)
        sync_api.expect.set_options(timeout=PATIENCE)

        def watch(route: "sync_api.Route") -> None:
            url = route.request.url
            if url.startswith((address, "data:", "blob:")):
                route.continue_()
            else:
                asked.append(url)
                route.abort()

        page.route("**/*", watch)
        page.goto(address)
        page.get_by_text("Drop a photo").first.wait_for()
        yield page
        browser.close()
    assert not asked, f"the page asked for {asked}"


@pytest.fixture
def tab(address: str) -> Iterator["sync_api.Page"]:
    """A visit to dove-tiny's page."""
    with visit(address) as page:
        yield page


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "landscape.png"
    SCENE["paint"](360, 240).save(path)
    return path


def upload(tab: "sync_api.Page", path: Path) -> None:
    tab.locator("input[type=file]").first.set_input_files(path)


def look(tab: "sync_api.Page", name: str) -> None:
    if folder := os.environ.get("DOVE_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        tab.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def rebuilt(tab: "sync_api.Page") -> str:
    """The picture that is shown now, as a data URI."""
    return tab.locator("#pictures img.rebuilt").get_attribute("src") or ""


def move(tab: "sync_api.Page", mean: int) -> None:
    tab.locator("#tokens input[type=range]").fill(str(mean))


def test_a_visit(tab: "sync_api.Page", photo: Path) -> None:
    expect = sync_api.expect
    expect(tab.locator("#query")).to_have_count(0)
    upload(tab, photo)
    line = tab.locator("#line")
    expect(line).to_contain_text("4.0 tokens a tile · 140 for 35 tiles")
    first = rebuilt(tab)
    move(tab, 9)
    expect(line).to_contain_text("9.0 tokens a tile")
    assert rebuilt(tab) != first
    tab.locator("#auto").click()
    expect(line).to_contain_text("lengths by auto")
    expect(tab.locator("#curve")).to_contain_text("JPEG of as many bytes")
    expect(tab.locator("#curve")).to_contain_text("cosines")
    expect(tab.locator("#pictures svg")).not_to_be_visible()
    tab.locator("#map input").check()
    expect(tab.locator("#pictures svg text")).to_have_count(35)
    expect(tab.locator("#pictures svg")).to_be_visible()
    tab.get_by_label("central square").check()
    expect(line).not_to_contain_text("a tile")
    move(tab, 7)
    expect(line).to_contain_text("7 tokens")
    look(tab, "square")


def test_the_divider_uncovers_the_original(tab: "sync_api.Page", photo: Path) -> None:
    upload(tab, photo)
    tab.locator("#pictures img").first.wait_for()
    clip = "() => getComputedStyle(document.querySelector('#pictures img.rebuilt')).clipPath"
    assert "50%" in tab.evaluate(clip)
    tab.locator("#at").fill("80")
    assert "80%" in tab.evaluate(clip)
    box = tab.locator("#pictures .pair").bounding_box()
    assert box is not None
    tab.mouse.click(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    assert re.search(r"2[45](\.\d+)?%", tab.evaluate(clip))
    assert tab.locator("#at").input_value() in ("24", "25")
    style = "() => getComputedStyle(document.querySelector('#pictures img')).imageRendering"
    assert tab.evaluate(style) == "pixelated"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_an_example_fits_the_window(address: str, width: int, scheme: str) -> None:
    with visit(address, width, scheme) as tab:
        look(tab, f"{width}-{scheme}-empty")
        tab.locator("#examples .gallery-item").nth(1).click()
        tab.locator("#pictures img").first.wait_for()
        tab.locator("#curve .curve svg").wait_for()
        tab.locator("#map input").check()
        look(tab, f"{width}-{scheme}")
        assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        boxes = [tab.locator(name).bounding_box() for name in ("#pictures", "#tokens", "#curve", "#extent", "#model")]
        for number, one in enumerate(boxes):
            assert one is not None
            assert one["x"] >= 0
            assert one["x"] + one["width"] <= width
            for other in boxes[:number]:
                assert other is not None
                beside = one["x"] >= other["x"] + other["width"] - 1 or other["x"] >= one["x"] + one["width"] - 1
                assert beside or one["y"] >= other["y"] + other["height"] - 1


def test_what_is_no_picture_gets_a_message(tab: "sync_api.Page", tmp_path: Path) -> None:
    bad = tmp_path / "notes.png"
    bad.write_text("not a picture")
    upload(tab, bad)
    message = tab.get_by_text("notes.png: not an image that can be read")
    sync_api.expect(message.first).to_be_visible()
    look(tab, "bad-file")


def test_a_file_over_the_limit_is_not_taken(tab: "sync_api.Page", tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    large.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(2_000_000))
    upload(tab, large)
    sync_api.expect(tab.get_by_text(re.compile("exceed|too large|maximum", re.IGNORECASE)).first).to_be_visible()


def choose(tab: "sync_api.Page", model: str) -> None:
    tab.locator("#model input").click()
    tab.get_by_role("option", name=model, exact=True).click()


def test_another_model_and_a_query(tab: "sync_api.Page", photo: Path) -> None:
    expect = sync_api.expect
    tab.get_by_label("central square").check()
    upload(tab, photo)
    tab.locator("#pictures img").first.wait_for()
    before = rebuilt(tab)
    choose(tab, "cosines")
    changed = "before => document.querySelector('#pictures img.rebuilt').src !== before"
    tab.wait_for_function(changed, arg=before)
    expect(tab.locator("#query")).to_have_count(0)
    before = rebuilt(tab)
    choose(tab, "asked")
    tab.wait_for_function(changed, arg=before)
    before = rebuilt(tab)
    box = tab.locator("#query input")
    box.fill("the house")
    box.press("Enter")
    tab.wait_for_function(changed, arg=before)
    look(tab, "query")
