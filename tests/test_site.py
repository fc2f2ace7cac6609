"""The site: its pages, and in a real browser that models run on them."""

import functools
import http.server
import json
import re
import shutil
import threading
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import zoo
from zoo.data.clips import handwritten_digits
from zoo.errors import ConfigError
from zoo.site.assets import FILES, copy_runtime
from zoo.site.build import build_site
from zoo.site.catalog import read_entry, score_tables

CARDS = Path(__file__).parents[1] / "cards"
MODELS = {name: CARDS / name for name in ("ms-predrnn-kth", "mslstm-mmnist")}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like the runtime."""
    folder = tmp_path_factory.mktemp("dist")
    for name in FILES:
        (folder / name).write_text("// nothing")
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, runtime: Path) -> Path:
    """A site with two models, which cannot run."""
    folder = tmp_path_factory.mktemp("site")
    build_site(folder, MODELS, runtime=runtime)
    return folder


class Links(HTMLParser):
    """Collects what a page links to or loads."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attributes if name in ("href", "src")]


def links(page: Path) -> list[str]:
    parser = Links()
    parser.feed(page.read_text(encoding="utf-8"))
    return parser.links


@pytest.mark.slow
def test_pages_link_to_files_of_the_site(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) == 3 + len(MODELS)
    for page in pages:
        for link in links(page):
            target = link.partition("?")[0]
            if not target.startswith(("data:", "http://", "https://")):
                assert (page.parent / target).is_file(), f"{page.name}: {link}"


@pytest.mark.slow
def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="([^"]+)"', page.read_text())
        assert not [link for link in loaded if link.startswith(("http:", "https:", "//"))]


@pytest.mark.slow
def test_models_are_exported_with_their_description(site: Path) -> None:
    for name in MODELS:
        description = json.loads((site / "models" / name / "description.json").read_text())
        assert description["kind"] == "step"
        assert description["name"] == name
        assert (site / "models" / name / "step.onnx").stat().st_size > 1e6


@pytest.mark.slow
def test_markup_in_a_card_is_not_interpreted(tmp_path: Path, runtime: Path) -> None:
    model = shutil.copytree(CARDS / "ms-predrnn-kth", tmp_path / "ms-predrnn-evil")
    card = model / "README.md"
    card.write_text(card.read_text().replace("## Intended use", "<script>alert(1)</script>\n\n##"))
    build_site(tmp_path / "site", {"ms-predrnn-evil": model}, runtime=runtime)
    page = (tmp_path / "site" / "models" / "ms-predrnn-evil" / "index.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_scores_of_different_protocols_are_in_different_tables() -> None:
    names = ["ms-predrnn-kth", "mslstm-mmnist", "convlstm-mmnist"]
    tables = score_tables([read_entry(name, CARDS / name) for name in names])
    assert [table.title for table in tables] == ["Moving MNIST", "KTH"]
    assert [row.name for row in tables[0].rows][-1] == "persistence"
    assert len(tables[0].rows) == 3


def test_best_ratio_of_spread_and_error_is_nearest_to_1() -> None:
    names = ["ms-convlstm-knmi", "mslstm-knmi"]
    (table,) = score_tables([read_entry(name, CARDS / name) for name in names])
    column = table.columns.index("spread/error")
    marked = {row.name: row.cells[column] for row in table.rows if row.cells[column].best}
    assert {name: cell.text for name, cell in marked.items()} == {"ms-convlstm-knmi": "0.995"}


def test_best_score_of_a_column_is_marked() -> None:
    names = ["mslstm-mmnist", "convlstm-mmnist"]
    (table,) = score_tables([read_entry(name, CARDS / name) for name in names])
    column = table.columns.index("SSIM")
    scores = [float(row.cells[column].text) for row in table.rows]
    assert [row.cells[column].best for row in table.rows] == [x == max(scores) for x in scores]


def test_runtime_without_its_files_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=FILES[0]):
        copy_runtime(tmp_path / "site", tmp_path)


def test_missing_npm_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="npm"):
        copy_runtime(tmp_path / "site")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("nosuchmodel",), "nosuchmodel"),
        (("--docs", "missing"), "missing"),
        (("--plugins", "missing.toml"), "missing.toml"),
        (("--runtime", "missing"), "missing"),
    ],
)
def test_bad_input_is_one_line(cli, tmp_path, monkeypatch, arguments, named) -> None:
    monkeypatch.chdir(tmp_path)
    assert named in cli.fail("site", *arguments, "-o", tmp_path / "site")


# ---- in a browser ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory):
    """The address of a site whose models run."""
    pytest.importorskip("playwright")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    folder = tmp_path_factory.mktemp("served")
    try:
        copy_runtime(tmp_path_factory.mktemp("runtime") / "dist")
    except ConfigError as error:
        pytest.skip(str(error))
    runtime = next(iter(tmp_path_factory.getbasetemp().glob("runtime*/dist")))
    build_site(folder, MODELS, runtime=runtime)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("localhost", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser(served: str):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, served: str):
    """A page; errors in its console fail the test."""
    problems: list[str] = []
    context = browser.new_context(base_url=served)
    page = context.new_page()
    page.set_default_timeout(120_000)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda it: problems.append(it.text) if it.type == "error" else None)
    yield page
    context.close()
    assert problems == []


def open_model(page, name: str) -> None:
    page.goto(f"/try.html?model={name}")
    wait(page)


def wait(page, state: str = "ready") -> None:
    page.wait_for_function(f"document.body.dataset.state === '{state}'")


def shown(page, canvas: str) -> list[int]:
    """The pixels of a canvas."""
    script = "c => Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data)"
    return page.eval_on_selector(f"#{canvas}", script)


@pytest.mark.slow
def test_every_page_opens_without_errors(page, served: str) -> None:
    for path in ("index", "try", "plugins", *(f"models/{name}/index" for name in MODELS)):
        page.goto(f"/{path}.html")
        page.wait_for_load_state("networkidle")
        assert page.title()


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_forecast_in_the_browser_is_that_of_predict(page, name: str) -> None:
    open_model(page, name)
    forecast = page.evaluate("zooPage.forecast.map(frame => Array.from(frame))")
    past = np.array(page.evaluate("zooPage.past.map(frame => Array.from(frame))"), np.float32)
    expected = zoo.load(name).predict(past.reshape(-1, 1, 64, 64), horizon=10)
    np.testing.assert_allclose(np.reshape(forecast, expected.shape), expected, atol=1e-4)


@pytest.mark.slow
def test_slider_shows_other_frames(page) -> None:
    open_model(page, "ms-predrnn-kth")
    first = shown(page, "forecast")
    page.focus("#time")
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    assert page.inner_text("#when") == "t+6"
    assert shown(page, "forecast") != first


@pytest.mark.slow
def test_file_is_read_and_a_bad_one_gives_a_message(page, tmp_path: Path) -> None:
    open_model(page, "mslstm-mmnist")
    np.save(tmp_path / "clip.npy", handwritten_digits()[:12])
    page.set_input_files("#file", tmp_path / "clip.npy")
    page.wait_for_function("zooPage.truth.length === 2 && document.body.dataset.state === 'ready'")
    (tmp_path / "bad.npy").write_bytes(b"not an array")
    page.set_input_files("#file", tmp_path / "bad.npy")
    wait(page, "error")
    assert ".npy" in page.inner_text("#status")


@pytest.mark.slow
def test_gif_is_read(page, cli, tmp_path: Path) -> None:
    open_model(page, "ms-predrnn-kth")
    shutil.copyfile(CARDS / "ms-predrnn-kth" / "demo.gif", tmp_path / "clip.gif")
    page.set_input_files("#file", tmp_path / "clip.gif")
    page.wait_for_function(
        "document.body.dataset.state !== 'busy' && zooPage.clip.frames.length > 15"
    )
    assert page.evaluate("[zooPage.clip.height, zooPage.clip.width]") == [64, 64]


@pytest.mark.slow
def test_digits_are_thrown_and_live_mode_reads_frame_after_frame(page) -> None:
    open_model(page, "mslstm-mmnist")
    page.select_option("#sample", "digits")
    page.wait_for_function("zooPage.clip.frames.length === 20 && zooPage.truth.length === 10")
    page.click("#throw")
    wait(page)
    page.click("#live")
    page.wait_for_function("zooPage.liveFrames > 5")
    page.click("#live")
    assert page.get_attribute("#live", "aria-pressed") == "false"


@pytest.mark.slow
def test_catalog_filters_by_data_set(page) -> None:
    page.goto("/index.html")
    page.select_option("select[name=dataset]", "kth")
    assert page.inner_text("#count") == "1 of 2 models"
    assert page.locator("tr[data-name]:visible").count() == 1


@pytest.mark.slow
def test_page_works_offline_once_loaded(page) -> None:
    open_model(page, "ms-predrnn-kth")
    page.wait_for_function("navigator.serviceWorker.controller !== null")
    page.reload()
    wait(page)
    page.context.set_offline(True)
    page.reload()
    wait(page)
    assert page.evaluate("zooPage.forecast.length") == 10


@pytest.mark.slow
def test_nothing_is_wider_than_a_phone(page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    for path in (
        "/index.html",
        "/try.html?model=ms-predrnn-kth",
        "/models/ms-predrnn-kth/index.html",
    ):
        page.goto(path)
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
