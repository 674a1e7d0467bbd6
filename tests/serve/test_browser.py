"""The page in a real browser: the system's, driven by Playwright."""

import base64
from collections.abc import Iterator

import pytest
from served_pages import HOSTILE, TOKEN, image_file, open_page

from jaxvision.data.corrections import read_corrections

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="Playwright drives the browser; it is not installed"
)

SECONDS = 30
"""That a busy machine may take for anything."""

DROP = """([type, content]) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "a.png", { type: "image/png" }));
  const options = { bubbles: true, cancelable: true };
  const event =
    type === "paste"
      ? new ClipboardEvent("paste", { ...options, clipboardData: transfer })
      : new DragEvent("drop", { ...options, dataTransfer: transfer });
  document.getElementById("stage").dispatchEvent(event);
}"""


@pytest.fixture
def tab(browser) -> Iterator[sync_api.Page]:
    """A tab that may say nothing on its console, and open no dialog."""
    context = browser.new_context()
    context.set_default_timeout(1000 * SECONDS)
    sync_api.expect.set_options(timeout=1000 * SECONDS)
    tab = context.new_page()
    said: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("dialog", lambda dialog: said.append(f"dialog: {dialog.message}"))
    yield tab
    context.close()
    # The browser notes each refusal.
    assert [line for line in said if "status of 400" not in line] == []


def give(tab, content, by="drop"):
    tab.locator("#method option").first.wait_for(state="attached")
    tab.evaluate(DROP, [by, base64.b64encode(content).decode()])


def probabilities(tab):
    return {
        one.locator(".name").text_content(): one.locator(".num").text_content()
        for one in tab.locator(".class").all()
    }


def test_from_an_image_to_marks_that_outlive_the_server(
    tab, classifier, checkpoint, tmp_path
):
    corrections = tmp_path / "corrections.csv"
    expect = sync_api.expect
    with open_page(classifier, corrections=corrections) as page:
        tab.goto(f"{page.url}/{TOKEN}/")
        # Drop an image, read the label.
        give(tab, image_file("green"))
        expect(tab.locator(".class")).to_have_count(3)
        assert tab.locator(".class .name").all_text_contents().count(HOSTILE) == 1
        said = tab.locator("#said").text_content()
        best = tab.locator(".class .name").first.text_content()
        assert said.startswith(f"{best}, ")
        # Switch the method.
        evidence = tab.locator("#evidence")
        expect(evidence).to_have_attribute("data-method", "grad_cam")
        tab.get_by_label("Method").select_option("gradient")
        expect(evidence).to_have_attribute("data-method", "gradient")
        tab.get_by_label("Class").select_option(HOSTILE)
        expect(evidence).to_have_attribute("alt", f"What speaks for {HOSTILE}")
        # Hide a part, by the keyboard.
        before = probabilities(tab)
        tab.get_by_label("A gray square to drag").check()
        tab.get_by_label("Gray square over the image").press("ArrowRight")
        expect(tab.locator("#said")).to_contain_text("with a part hidden")
        assert probabilities(tab) != before
        # Point at a unit.
        tab.locator("#layer").select_option("conv1")
        tab.locator(".unit").nth(1).hover()
        expect(tab.locator("#unit-said")).to_contain_text("can see 3×3 pixels")
        expect(tab.locator("#theoretical")).to_be_visible()
        expect(tab.locator("#exciting li")).to_have_count(9)
        expect(tab.locator("#nearest-images li")).to_have_count(5)
        # Mark labels, by keys.
        tab.get_by_role("tab", name="Review the labels").click()
        first = tab.locator(".doubt").first
        right = first.locator(".choices .name").first.text_content()
        first.focus()
        tab.keyboard.press("1")
        expect(first.locator(".marked")).to_contain_text(f"wrong label → {right}")
        expect(tab.locator(".doubt").nth(1)).to_be_focused()
        tab.keyboard.press("b")
        expect(tab.locator("#tally")).to_have_text(f"2 images marked, in {corrections}")
        rows = read_corrections(corrections)
        assert [(row.action, row.label) for row in rows] == [
            ("label", right),
            ("bad", ""),
        ]
        # Reload.
        tab.reload()
        expect(first.locator(".marked")).to_contain_text(f"wrong label → {right}")
        tab.get_by_role("tab", name="One image").click()
        expect(tab.locator(".class .name").first).to_have_text(best)
        # What is asked of a server that has ended would be noted.
        tab.goto("about:blank")
    with open_page(classifier, corrections=corrections) as page:
        tab.goto(f"{page.url}/{TOKEN}/#review")
        expect(first.locator(".marked")).to_contain_text(f"wrong label → {right}")
        first.get_by_role("button", name="undo").click()
        expect(first.locator(".marked")).to_be_hidden()
        tab.goto("about:blank")
    assert [row.action for row in read_corrections(corrections)] == ["bad"]


def test_an_image_is_pasted_chosen_and_refused(tab, page):
    expect = sync_api.expect
    tab.goto(f"{page.url}/{TOKEN}/")
    give(tab, image_file("blue"), by="paste")
    expect(tab.locator(".class")).to_have_count(3)
    tab.locator("#file").set_input_files(
        {"name": "a.txt", "mimeType": "text/plain", "buffer": b"no image"}
    )
    expect(tab.get_by_role("alert")).to_contain_text("not an image")
    tab.locator("#file").set_input_files(
        {"name": "a.png", "mimeType": "image/png", "buffer": image_file("green")}
    )
    expect(tab.get_by_role("alert")).to_be_hidden()


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_is_wider_than_the_window(tab, page, width):
    tab.set_viewport_size({"width": width, "height": 800})
    tab.goto(f"{page.url}/{TOKEN}/")
    give(tab, image_file("blue"))
    sync_api.expect(tab.locator(".unit").first).to_be_visible()
    assert tab.evaluate("document.documentElement.scrollWidth") == width
