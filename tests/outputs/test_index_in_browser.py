"""The page of a run in a real browser, opened from the disk: sort, filter, open, by keyboard."""

import pytest
from scored_folder import HOSTILE, Bright, write_images

from scrd.data.series import list_sources
from scrd.outputs.pictures import Outputs
from scrd.outputs.score_folder import score_all
from scrd.report.cases import Cases, Row
from scrd.report.html import write_report
from scrd.report.index_page import Model, write_index
from synthetic_volumes import head, write_dicom

sync = pytest.importorskip("playwright.sync_api", reason="no playwright: the page is not tried")
DESK = {"viewport": {"width": 1280, "height": 850}}
PHONE = {"viewport": {"width": 375, "height": 740}, "has_touch": True, "color_scheme": "dark"}


@pytest.fixture
def page(chromium, request):
    """A page on which nothing goes wrong unseen, and which asks nobody for anything."""
    context = chromium.new_context(**getattr(request, "param", DESK))
    page = context.new_page()
    wrong, asked = [], []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    # that of a heat map which a test takes away
    gone = "Failed to load resource: net::ERR_FILE_NOT_FOUND"
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.on("request", lambda r: asked.append(r.url))
    yield page
    context.close()
    assert set(wrong) <= {gone}
    assert all(url.startswith("file:///") for url in asked)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    images = write_images(root / "in")
    score_all(Bright(), list_sources([images]), root / "out", Outputs())
    (root / "out" / "overlays" / "058.jpg").unlink()  # somebody tidied up
    return root / "out"


def visit(page, folder, name="index.html"):
    page.goto((folder / name).as_uri())
    page.locator(".results tbody tr").first.wait_for()


def names(page):
    return page.locator("td.name a").all_inner_texts()


def counted(page, words):
    page.locator("#cases-total").get_by_text(words, exact=True).wait_for()


def column(page, label):
    return [float(text) for text in page.locator(f'td[data-label="{label}"]').all_inner_texts()]


def test_sort_filter_and_pages(page, run):
    visit(page, run)
    scores = column(page, "Score")
    assert len(scores) == 50 and scores == sorted(scores, reverse=True)
    page.get_by_role("button", name="Score").click()
    assert names(page)[0] == "000.png"
    page.get_by_role("button", name="Next page").click()
    assert len(names(page)) == 11 and names(page)[-1] == "broken.png"
    page.get_by_role("button", name="Name").click()
    assert names(page)[:3] == [HOSTILE, "000.png", "001.png"]
    assert page.locator('th[data-sort="name"]').get_attribute("aria-sort") == "ascending"
    page.get_by_label("Which cases").select_option("Without a score")
    assert names(page) == ["broken.png"]
    assert page.locator(".tag").inner_text() == "No score"
    page.get_by_label("Which cases").select_option("Flagged")
    flagged = names(page)
    assert flagged and set(page.locator(".tag").all_inner_texts()) == {"Flagged"}
    page.get_by_label("Find by").fill("59.P")
    counted(page, "1 image")
    assert names(page) == ["059.png"]
    page.get_by_label("Find by").fill("nothing is called so")
    page.get_by_text("No image is like that.").wait_for()


def test_a_name_that_looks_like_markup_stays_a_name(page, run):
    visit(page, run)
    page.get_by_label("Find by").fill("onerror")
    counted(page, "1 image")
    assert names(page) == [HOSTILE]
    page.get_by_role("link", name=HOSTILE).click()
    assert page.locator("dialog h2").inner_text() == HOSTILE
    assert page.locator("img[src=x]").count() == 0
    width = "document.querySelector('dialog .stage img').naturalWidth"
    page.wait_for_function(f"{width} > 100")


def test_a_case_is_opened_and_left_by_keyboard(page, run):
    visit(page, run)
    page.locator("td.name a").first.focus()
    page.keyboard.press("Enter")
    title = page.locator("dialog[open] h2")
    assert title.inner_text() == "059.png"
    page.wait_for_function("document.querySelector('dialog .stage img').naturalWidth > 100")
    page.keyboard.press("j")
    page.locator("dialog h2", has_text="058.png").wait_for()
    page.get_by_text("Its heat map is not there any more.").wait_for()
    page.keyboard.press("ArrowRight")
    page.locator("dialog h2", has_text="057.png").wait_for()
    page.keyboard.press("k")
    page.locator("dialog h2", has_text="058.png").wait_for()
    page.keyboard.press("Escape")
    page.locator("dialog[open]").wait_for(state="detached")
    page.wait_for_function("document.activeElement.textContent === '058.png'")
    assert "#image/" not in page.url


def test_the_way_back_and_an_address_lead_to_a_case(page, run):
    visit(page, run)
    page.locator("tr", has_text="055.png").locator("td.verdict").click()
    page.locator("dialog[open] h2", has_text="055.png").wait_for()
    address = page.url
    page.go_back()
    page.locator("dialog[open]").wait_for(state="detached")
    page.goto("about:blank")
    page.goto(address)
    page.locator("dialog[open] h2", has_text="055.png").wait_for()
    page.get_by_role("button", name="Back to the list").click()
    page.locator("dialog[open]").wait_for(state="detached")


def test_the_images_of_a_study(page, tmp_path):
    for i in range(2):
        write_dicom(tmp_path / "in" / f"s{i}", head(i), i)
    score_all(Bright(), list_sources([tmp_path / "in"]), tmp_path / "out", Outputs())
    visit(page, tmp_path / "out")
    assert page.get_by_role("button", name="Studies (2)").get_attribute("aria-pressed") == "true"
    study = names(page)[0]
    page.locator("td.name a").first.click()
    page.get_by_role("button", name="Show its images").click()
    counted(page, "8 images")
    assert len(names(page)) == 8
    assert page.locator(".inside").inner_text().startswith(f"Of {study}")
    page.get_by_role("button", name="Show all").click()
    counted(page, "16 images")


@pytest.mark.parametrize("page", [PHONE], indirect=True)
def test_a_phone_shows_it_without_scrolling_sideways(page, run):
    visit(page, run)
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    page.get_by_label("Order").select_option("By name")
    assert names(page)[1] == "000.png"
    page.locator("td.name a").nth(1).tap()
    page.locator("dialog[open] h2", has_text="000.png").wait_for()
    page.get_by_role("button", name="Next", exact=True).tap()
    page.locator("dialog h2", has_text="001.png").wait_for()
    assert page.evaluate("document.querySelector('dialog').scrollWidth") <= 375


def test_as_many_rows_as_a_page_holds_are_sorted_at_once(page, tmp_path):
    cases = Cases("image")
    for i in range(25_000):
        cases.add(Row(f"/data/ward {i % 7}/{i}.png", i / 7 % 13, (i % 999 + 1) / 1000))
    write_index(tmp_path / "index.html", [cases], Model(None, Bright().calibration), ["scores.csv"])
    visit(page, tmp_path)
    assert "20,000 of 25,000 rows" in page.locator(".notice").inner_text()
    took = "(sort) => { const t = performance.now(); document.querySelector(sort).click(); "
    took += "return performance.now() - t; }"
    for sort in ("name", "p", "score"):
        assert page.evaluate(took, f'[data-sort="{sort}"] button') < 2000


def test_the_report_of_an_evaluation_has_the_list_too(page, tmp_path):
    cases = Cases("image")
    cases.add(Row("a.png", 2.0, 0.01, True, abnormal=True, kind="glioma"))
    cases.add(Row("b.png", 1.0, 0.5, abnormal=True, kind="glioma"))
    cases.add(Row("c.png", 3.0, 0.01, True, abnormal=False, kind="normal"))
    parts = {"metrics": {}, "figures": [], "galleries": [], "notes": [], "settings": {}}
    write_report(tmp_path / "report.html", title="T", subtitle="S", **parts, cases=cases)
    visit(page, tmp_path, "report.html")
    assert names(page) == ["c.png", "a.png", "b.png"]
    assert not page.locator(".thumb").first.is_visible()  # there is no heat map to show
    page.get_by_label("Which cases").select_option("Abnormal, not flagged")
    assert names(page) == ["b.png"]
    page.get_by_label("Which cases").select_option("Normal, flagged")
    assert names(page) == ["c.png"]
    page.locator("td.name a").click()
    page.get_by_text("No heat map was written for it.").wait_for()


@pytest.mark.parametrize("page", [DESK, PHONE], indirect=True, ids=["light", "dark"])
def test_axe_finds_nothing_wrong(page, run, tmp_path):
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="no axe: access is not tried"
    ).Axe()
    levels = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}
    cases = Cases("image")
    cases.add(Row("a.png", 2.0, 0.01, True, ("too dark",), abnormal=True, kind="glioma"))
    cases.add(Row("b.png", None, refusal="broken", abnormal=True, kind="glioma"))
    parts = {"metrics": {}, "figures": [], "galleries": [], "notes": [], "settings": {}}
    write_report(tmp_path / "report.html", title="T", subtitle="S", **parts, cases=cases)
    for folder, name in ((run, "index.html"), (tmp_path, "report.html")):
        visit(page, folder, name)
        for opened in (False, True):
            if opened:
                page.locator("td.name a").first.click()
                page.locator("dialog[open] h2").wait_for()
            found = axe.run(page, options=levels)
            assert found.violations_count == 0, found.generate_report()
