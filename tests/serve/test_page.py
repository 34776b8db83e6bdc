"""The page in a real browser: drop, look, mark, come back."""

import re

import pytest
from serving import Server, finished, picture, send, until
from states import UID, write_state

from scrd.dicom.uids import tag
from scrd.serve.auth import new_token
from synthetic_volumes import head, write_dicom

sync = pytest.importorskip("playwright.sync_api", reason="no playwright: the page is not tried")

DROP = """
async (files) => {
  const transfer = new DataTransfer();
  for (const [name, bytes] of files) transfer.items.add(new File([Uint8Array.from(bytes)], name));
  for (const kind of ["dragover", "drop"]) {
    const given = { dataTransfer: transfer, bubbles: true, cancelable: true };
    document.dispatchEvent(new DragEvent(kind, given));
  }
}
"""


@pytest.fixture
def page(chromium, shared, request):
    """A page on which nothing goes wrong unseen."""
    options = getattr(request, "param", {"viewport": {"width": 1280, "height": 850}})
    context = chromium.new_context(**options)
    page = context.new_page()
    wrong, foreign = [], []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    page.on("response", lambda r: wrong.append(r.url) if r.status >= 400 else None)
    page.on("request", lambda r: foreign.append(r.url) if "127.0.0.1" not in r.url else None)
    page.goto(shared.url)
    yield page
    context.close()
    assert wrong == []
    assert [url for url in foreign if not url.startswith(("blob:", "data:"))] == []


def rows(page):
    return page.locator(".results tbody tr[data-key]")


def drop(page, *files):
    page.locator(".drop").wait_for()
    page.evaluate(DROP, [[name, list(content)] for name, content in files])


def opened(page, name):
    page.get_by_role("link", name=name, exact=True).first.click()
    page.locator("#why li").first.wait_for()


def test_dropped_images_and_a_study_are_scored_looked_at_and_marked(page, tmp_path, shared):
    markup = "<b>spot</b>.png"
    pictures = [("one.png", picture(1)), ("two.png", picture(2)), (markup, picture(3, spot=True))]
    drop(page, *pictures)
    write_dicom(tmp_path / "study", head(5), 5)
    study = sorted((tmp_path / "study").iterdir())
    page.locator("#files").set_input_files(study)
    rows(page).nth(3).wait_for(timeout=30_000)
    flagged = page.locator("tr", has_text=markup)
    assert flagged.locator(".tag").inner_text() == "Flagged"
    assert page.locator("td.name b").count() == 0
    assert page.locator("tr", has_text="MR, 8 images").locator(".model").inner_text() == "head"

    opened(page, markup)
    assert page.locator("h1").inner_text() == markup
    assert page.locator(".pane:visible").count() == 2
    assert "normal images" in page.locator("#why").inner_text()
    assert "For research use only" in page.locator("body").inner_text()
    canvas = page.locator(".pane:visible canvas").nth(1)
    before = canvas.screenshot()
    page.locator("#opacity").fill("0.1")
    assert page.locator("output[for=opacity]").inner_text() == "10 %"
    faint = canvas.screenshot()
    assert faint != before
    page.keyboard.press("c")
    assert canvas.screenshot() != faint  # the contour is off
    source = page.locator(".pane:visible canvas").nth(0)
    before = source.screenshot()
    page.locator("#window").fill("40")
    assert source.screenshot() != before
    page.locator("h1").click()
    page.keyboard.press("b")
    assert page.locator(".pane:visible").count() == 1

    page.locator("#comment").fill("a square, no lesion <script>")
    page.locator("[data-mark=wrong]").click()
    page.get_by_text("Marked as wrong.").wait_for()
    page.reload()
    page.locator("#why li").first.wait_for()
    assert page.locator("[data-mark=wrong]").get_attribute("aria-pressed") == "true"
    assert page.locator("#comment").input_value() == "a square, no lesion <script>"
    page.keyboard.press("Escape")
    page.locator("tr", has_text=markup).get_by_text("marked wrong").wait_for()
    with shared.client() as client:
        assert "a square, no lesion" in client.get("/v1/marks.csv").text


def test_a_volume_is_walked_through(page, tmp_path):
    write_dicom(tmp_path / "study", head(6, lesion=True), 6)
    page.locator("#files").set_input_files(sorted((tmp_path / "study").iterdir()))
    page.locator("tr", has_text="MR, 8 images").first.wait_for(timeout=30_000)
    page.locator("tr", has_text="MR, 8 images").first.locator("td.name a").click()
    page.locator("#why li").first.wait_for()
    words = page.locator(".strip p")
    for _ in range(8):
        page.keyboard.press("ArrowLeft")
    assert words.inner_text().startswith("Slice 1 of 8: score ")
    page.keyboard.press("ArrowRight")
    assert words.inner_text().startswith("Slice 2 of 8")
    box = page.locator(".strip canvas").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.99, box["y"] + 10)
    assert words.inner_text().startswith("Slice 8 of 8")
    page.locator("#why h2", has_text="slice 8").wait_for()
    assert "Study" in page.locator(".facts").inner_text()
    files = page.locator("#downloads a").all_inner_texts()
    assert {"Maps as NIfTI volume", "DICOM report"} <= set(files)


def test_the_list_is_filtered_sorted_and_paged(page, shared):
    with shared.client() as client:
        files = [(f"many {i:03}.png", picture(i % 7, spot=i % 10 == 0)) for i in range(70)]
        finished(client, send(client, *files).json()["id"])
    page.get_by_label("Find by a part of the name").fill("many")
    page.locator("#total", has_text="70 results").wait_for()
    assert rows(page).count() == 50
    page.get_by_role("button", name="Next page").click()
    page.get_by_text("51 to 70 of 70").wait_for()
    assert rows(page).count() == 20
    page.get_by_label("Which results").select_option("flagged")
    page.locator("#total:text-is('7 results')").wait_for()
    assert set(rows(page).locator(".tag").all_inner_texts()) == {"Flagged"}
    page.get_by_role("button", name="p", exact=True).click()
    page.locator("th[data-sort=p_value][aria-sort=ascending]").wait_for()
    opened(page, rows(page).first.locator("td.name a").inner_text())
    first = page.locator("h1").inner_text()
    page.keyboard.press("j")
    page.wait_for_url("**/#/result/*")
    page.locator(f"h1:not(:text-is('{first}'))").wait_for()


def test_a_list_that_changes_takes_neither_click_nor_focus(page, shared):
    with shared.client() as client:

        def arrives(name):
            finished(client, send(client, (name, picture(1))).json()["id"])

        arrives("pressed.png")
        link = page.get_by_role("link", name="pressed.png", exact=True)
        link.focus()
        arrives("after focus.png")
        page.get_by_role("link", name="after focus.png").wait_for()
        assert page.evaluate("document.activeElement.textContent") == "pressed.png"

        page.wait_for_timeout(500)  # the refresh of the last event, and pictures
        link.hover()
        page.mouse.down()
        arrives("after press.png")
        page.wait_for_timeout(1000)
        assert page.get_by_role("link", name="after press.png").count() == 0
        page.mouse.up()
        page.locator("h1:text-is('pressed.png')").wait_for()
        page.go_back()
        page.get_by_role("link", name="after press.png").wait_for()


def test_a_late_answer_does_not_come_over_what_was_asked_for_since(page, shared):
    with shared.client() as client:
        finished(client, send(client, ("late.png", picture(2))).json()["id"])
    held = []
    one = re.compile("/v1/results/(?!search)[^/]+$")
    page.route(one, lambda route: held.append(route))
    page.get_by_role("link", name="late.png", exact=True).click()
    page.wait_for_url("**/#/result/*")
    while not held:
        page.wait_for_timeout(20)
    page.evaluate("location.hash = '#/state'")
    page.locator("#main[data-ready='#/state']").wait_for()
    held[0].continue_()
    page.wait_for_timeout(500)
    assert page.locator("h1").inner_text() == "State"
    page.keyboard.press("Escape")  # a key of the view that was left while it loaded
    assert page.evaluate("location.hash") == "#/state"

    page.unroute(one)
    page.route("**/view.bin*", lambda route: None)  # an image that never comes
    page.evaluate("location.hash = '#/'")
    page.get_by_role("link", name="late.png", exact=True).click()
    page.locator("h1:text-is('late.png')").wait_for()
    page.get_by_role("link", name="Back to the list").click()
    page.locator(".results").wait_for()


def test_who_waits_for_a_view_that_never_comes_is_told_and_goes_elsewhere(page, shared):
    with shared.client() as client:
        finished(client, send(client, ("never.png", picture(3))).json()["id"])
    held, gone = [], []
    one = re.compile("/v1/results/(?!search)[^/]+$")  # what a view that is left asks is let go too
    page.on("requestfailed", lambda r: gone.append(r.url) if one.search(r.url) else None)
    page.route(one, lambda route: held.append(route))
    for view in ("API", "State", "Results"):
        page.evaluate("location.hash = '#/'")
        page.get_by_role("link", name="never.png", exact=True).click()
        page.get_by_text("Loading…").wait_for()
        page.get_by_role("link", name=view, exact=True).click()
        page.locator(f"h1:text-is('{view}')").wait_for()
        assert page.get_by_text("Loading…").count() == 0
    # let go, since a browser has but six lines to a service
    until(lambda: page.wait_for_timeout(20) or len(gone) == len(held) == 3)
    assert gone == [route.request.url for route in held]


def test_what_could_not_be_scored_says_why(page):
    page.locator("#files").set_input_files(
        {"name": "note.txt", "mimeType": "text/plain", "buffer": b"hello"}
    )
    page.locator("tr", has_text="note.txt").get_by_text("No score").wait_for(timeout=30_000)
    page.get_by_role("link", name="note.txt").click()
    page.get_by_text("not a PNG").first.wait_for()
    assert page.locator(".stage:visible").count() == 0


def test_the_state_and_the_api_are_told(page):
    page.get_by_role("link", name="State").click()
    page.get_by_text("Images are taken.").wait_for()
    assert "disc" in page.locator("table.plain").inner_text()
    page.get_by_role("link", name="API").click()
    page.get_by_text("/v1/score").first.wait_for()


PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.mark.parametrize(
    "page", [PHONE, PHONE | {"color_scheme": "dark"}], indirect=True, ids=["light", "dark"]
)
def test_it_fits_a_phone(page):
    page.locator("#files").set_input_files(
        {"name": "phone.png", "mimeType": "image/png", "buffer": picture(4, spot=True)}
    )
    page.locator("tr", has_text="phone.png").first.wait_for(timeout=30_000)
    width = "document.documentElement.scrollWidth"
    assert page.evaluate(width) == 390
    opened(page, "phone.png")
    assert page.evaluate(width) == 390
    assert page.locator(".pane:visible").count() == 1
    for button in page.locator("button:visible").all():
        assert button.bounding_box()["height"] >= 24  # WCAG 2.2, target size
    page.get_by_role("link", name="State").click()
    page.locator(".tiles").wait_for()
    assert page.evaluate(width) == 390


SCHEMES = [
    {"color_scheme": scheme, "viewport": {"width": width, "height": 850}}
    for scheme in ("light", "dark")
    for width in (1280, 390)
]


@pytest.mark.parametrize(
    "page", SCHEMES, indirect=True, ids=lambda s: f"{s['color_scheme']}-{s['viewport']['width']}"
)
def test_axe_finds_nothing_serious(page, tmp_path):
    write_dicom(tmp_path / "study", head(7), 7)
    page.locator("#files").set_input_files(sorted((tmp_path / "study").iterdir()))
    page.locator("tr", has_text="MR, 8 images").first.wait_for(timeout=30_000)
    bad = {}
    for view in ("#/", "result", "#/state", "#/api"):
        if view == "result":
            page.locator("tr", has_text="MR, 8 images").first.locator("td.name a").click()
            page.locator("#why li").first.wait_for()
        else:
            page.evaluate(f"location.hash = '{view}'")
            page.locator(f"#main[data-ready='{view}']").wait_for()
        if found := serious(page):
            bad[view] = found
    assert bad == {}


def serious(page):
    """What axe finds that would hinder somebody."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe").Axe()
    return [
        (v["id"], v["nodes"][0]["html"], v["nodes"][0]["failureSummary"])
        for v in axe.run(page).response["violations"]
        if v["impact"] in ("serious", "critical")
    ]


def test_drift_is_told_and_warned_of(chromium, exports, tmp_path):
    server = Server(tmp_path / "store", [f"disc={exports / 'first'}"]).start()
    context = chromium.new_context()
    try:
        page = context.new_page()
        page.goto(f"{server.url}/#/state")
        page.locator("#drift li", has_text="disc: no image with a score yet").wait_for()
        assert page.locator("#drifted").count() == 0
        with server.client() as client:
            bright = [(f"{i}.png", picture(i, spot=True)) for i in range(60)]
            assert finished(client, send(client, *bright).json()["id"])["status"] == "done"
        page.reload()
        page.locator("#drift li", has_text="disc: ALARM: score is higher").wait_for()
        warning = page.locator("#drifted")
        assert "p-values and flags may no longer hold" in warning.inner_text()
        assert "without drift this happens in at most 1 of 20 streams" in warning.inner_text()
        warning.get_by_role("link", name="Show this result").first.click()
        page.locator("#why li").first.wait_for()
    finally:
        context.close()
        server.kill()


def test_watches_are_told(chromium, exports, tmp_path):
    model, scores = exports / "first", [1.5] * 20
    states = [
        write_state(tmp_path / "quiet", model, [*scores, 3.0], refused=["no feet"], dead=True),
        write_state(tmp_path / "drifted", model, [*scores, *[4.0] * 40], retried=["no connection"]),
        tmp_path / "later",
    ]
    options = [word for state in states for word in ("--watch", state)]
    server = Server(tmp_path / "store", [f"disc={model}"], *options).start()
    context = chromium.new_context(viewport={"width": 390, "height": 844})
    try:
        page = context.new_page()
        page.goto(f"{server.url}/#/state")
        page.locator("#main[data-ready]").wait_for()
        quiet, drifted = page.locator(".watch").all()
        assert quiet.locator(".notice").inner_text() == "Dead: it was stopped."
        assert quiet.locator(".tile").nth(1).inner_text().split("\n")[:2] == ["Flagged today", "1"]
        assert quiet.get_by_text("no feet (1)").count() == 1
        assert quiet.locator("tbody tr").count() == 1
        assert tag(f"{UID}.20") in quiet.locator("tbody tr").inner_text()
        assert quiet.locator("dd .problem").count() == 0
        assert drifted.locator(".notice").inner_text() == "Well: it lives."
        assert drifted.get_by_text(": no connection").count() == 1
        assert "ALARM: score is higher" in drifted.locator("dd .problem").inner_text()
        assert drifted.locator("tbody tr").first.is_hidden()
        drifted.get_by_text("Studies flagged today").click()
        assert drifted.locator("tbody tr:visible").count() == 40
        assert "drifted archive: ALARM" in page.locator("#drifted").inner_text()
        assert "later: no such file yet" in page.locator("#watches > .problem").inner_text()
        assert UID not in page.content()
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert serious(page) == []
    finally:
        context.close()
        server.kill()


def test_with_tokens_one_signs_in(chromium, exports, tmp_path):
    token, line = new_token("anna", "read")
    (tmp_path / "tokens").write_text(line)
    models = [f"disc={exports / 'first'}"]
    server = Server(tmp_path / "store", models, "--tokens", tmp_path / "tokens").start()
    context = chromium.new_context()
    try:
        page = context.new_page()
        page.goto(server.url)
        page.get_by_label("Token").fill("scrd_wrong")
        page.get_by_role("button", name="Sign in").click()
        page.get_by_text("There is no such token.").wait_for()
        page.get_by_label("Token").fill(token)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_text("Nothing was scored yet.").wait_for()
        assert page.locator(".drop").count() == 0  # it may only read
        page.reload()
        page.get_by_text("Nothing was scored yet.").wait_for()
        page.get_by_role("button", name="Sign out").click()
        page.get_by_label("Token").wait_for()
    finally:
        context.close()
        server.kill()
