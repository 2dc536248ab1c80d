"""The demo in a real browser, as a visitor uses it: `make test-e2e` installs what this needs.

DOVE_SCREENSHOTS, where it is set, names a folder for pictures of the page.
"""

import os
import re
import runpy
import shutil
import zipfile
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
    """The page of dove-tiny, at any free port."""
    from dove.demo.page import Demo, launch
    from dove.tokenizer import Dove

    model = Dove.from_pretrained("dove-tiny")
    demo = Demo(name="dove-tiny", model=model, others={}, folder=tmp_path_factory.mktemp("files"))
    page, found = launch(demo, host="127.0.0.1", port=0, max_megabytes=1)
    yield found
    page.close(verbose=False)


@pytest.fixture(scope="module")
def asked_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page of a model that takes queries, which it has not learned to understand, beside dove-tiny."""
    from dove.demo.page import Demo, launch
    from dove.query.config import QueryConfig
    from dove.query.tokenizer import QDove
    from dove.tokenizer import Dove

    dove = Dove.from_pretrained("dove-tiny")
    model = QDove.from_dove(dove, QueryConfig(tokenizer="tiny", vocab_size=1000, max_length=8))
    demo = Demo(name="asked", model=model, others={"plain": dove}, folder=tmp_path_factory.mktemp("files"))
    page, found = launch(demo, host="127.0.0.1", port=0, max_megabytes=1)
    yield found
    page.close(verbose=False)


@contextmanager
def visit(address: str) -> Iterator["sync_api.Page"]:
    """The page in a browser that reaches this address alone; that nothing else was asked for is checked at the end."""
    asked: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 1000})
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
        look(page, f"end-{len(asked)}")
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


def shown(tab: "sync_api.Page") -> str:
    return tab.locator("#rebuilt img").get_attribute("src") or ""


def test_a_visit(tab: "sync_api.Page", photo: Path, tmp_path: Path) -> None:
    expect = sync_api.expect
    expect(tab.locator("#query")).to_have_count(0)
    upload(tab, photo)
    line = tab.locator("#line")
    expect(line).to_contain_text("of 64 tokens")
    look(tab, "uploaded")
    first = shown(tab)
    slider = tab.locator("#tokens input[type=range]")
    slider.focus()
    slider.fill("40")
    expect(line).to_contain_text("40 of 64 tokens")
    tab.wait_for_function("before => document.querySelector('#rebuilt img').src !== before", arg=first)
    look(tab, "slider")
    tab.locator("#auto").click()
    expect(line).not_to_contain_text("40 of 64 tokens")
    tab.get_by_label("Quality in dB").fill("31")
    tab.locator("#reach").click()
    expect(line).to_contain_text(re.compile(r"3[1-4]\.\d dB"))
    tab.locator("#save").click()
    link = tab.locator("#file a").first
    with tab.expect_download() as caught:
        link.click()
    caught.value.save_as(tmp_path / "tokens.zip")
    assert "tokens/store.json" in zipfile.ZipFile(tmp_path / "tokens.zip").namelist()
    tab.locator("#tile").click()
    tab.locator("#map img").wait_for()
    expect(tab.get_by_text("tiles ·")).to_be_visible()
    look(tab, "tiles")


def test_what_is_no_picture_gets_a_message(tab: "sync_api.Page", tmp_path: Path, photo: Path) -> None:
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
    look(tab, "too-large")


def test_a_query_changes_the_picture(asked_address: str, photo: Path) -> None:
    with visit(asked_address) as tab:
        upload(tab, photo)
        line = tab.locator("#line")
        sync_api.expect(line).to_contain_text("of 64 tokens")
        sync_api.expect(tab.locator("#beside img")).to_be_visible()
        before = shown(tab)
        box = tab.locator("#query textarea, #query input").first
        box.fill("the house")
        box.press("Enter")
        tab.wait_for_function("before => document.querySelector('#rebuilt img').src !== before", arg=before)
        look(tab, "query")
