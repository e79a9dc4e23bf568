"""``/docs`` in a headless Chromium: people can send requests, copy them, and see errors, also with keyboard and screen
reader; a hostile script cannot put markup on the page. Skipped if no Chromium is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import browser
import pytest
from browser import Browser
from harness import Server

pytestmark = pytest.mark.timeout(180)

# Everything in it that a page could take for markup, code or an address; and a schema that contains itself.
MARK = "<img src=x onerror='document.title=1'></script><script>document.title=1</script>"
HOSTILE = {
    "openapi": "3.1.0",
    "info": {"title": MARK, "description": MARK, "version": {"not": "text"}},
    "paths": {
        f"/{MARK}": {"get": {"description": MARK}, "__proto__": {"description": "x"}},
        "/score": {
            "post": {
                "requestBody": {"content": {MARK: {"schema": {"$ref": "#/components/schemas/Loop"}}}},
                "responses": {"200": {"content": {"application/json": {"schema": {"$ref": "#/a/constructor"}}}}},
            }
        },
    },
    "components": {
        "schemas": {
            "Loop": {
                "type": "object",
                "description": MARK,
                "properties": {
                    MARK: {"type": "string", "description": MARK, "default": MARK},
                    "__proto__": {"type": MARK},
                    **{f"p{number}": {"$ref": "#/components/schemas/Loop"} for number in range(30)},
                    "list": {"type": "array", "items": {"$ref": "#/components/schemas/Loop"}},
                },
            }
        }
    },
}


@pytest.fixture
def server(shared):
    return shared("documented.py")


@pytest.fixture(scope="module")
def page() -> Iterator[Browser]:
    if browser.installed() is None:
        pytest.skip("no Chromium is installed")
    with Browser() as made:
        yield made


def url(server: Server, path: str = "/docs") -> str:
    return f"http://127.0.0.1:{server.port}{path}"


def open_page(page: Browser, server: Server) -> None:
    page.console.clear()
    page.requests.clear()
    page.show(1280, 1000, "light")
    page.open(url(server))
    page.see("#health", "ready")


def test_the_sample_is_filled_in_sent_and_answered(page, server):
    open_page(page, server)
    page.see("#body-hint", "The sample")
    sample = {"rows": [[1.5, 2.0]], "name": "it's \\ a <b>name</b>"}
    assert json.loads(page.run("document.querySelector('#body').value")) == sample
    assert page.text("#interface").count("array of array") >= 1
    # The keyboard alone: Ctrl+Enter in the field sends.
    page.run("document.querySelector('#body').focus()")
    page.press("Enter", modifiers=2, code=13)
    page.see("#answer-state", "Status 200")
    assert "In run()" in page.text("#facts")
    assert json.loads(page.text("#answer-body"))["name"] == sample["name"]
    page.fill("#body", json.dumps({"rows": [[1]], "name": ""}))
    page.click("#send")
    page.see("#answer-state", "Status 500")
    assert "ZeroDivisionError" in page.text("#facts")
    # The browser itself writes a line about a status of 500; nothing else was refused or has failed.
    assert all("status of 500" in line for line in page.console), page.console
    assert all(request.startswith(url(server, "")) for request in page.requests)


def test_what_is_copied_does_the_same(page, server, tmp_path):
    open_page(page, server)
    page.see("#body-hint", "The sample")
    page.fill("#headers", "X-User: it's me\nX-Empty:")
    program = tmp_path / "call.py"
    program.write_text(page.text("#python"))
    expected = b"it's \\\\ a <b>name</b>"
    environment = {**os.environ, "no_proxy": "*"}
    ran = subprocess.run([sys.executable, program], capture_output=True, timeout=60, env=environment)
    assert ran.stdout.startswith(b"200 "), ran
    assert expected in ran.stdout
    curl = ["sh", "-c", page.text("#curl")]
    ran = subprocess.run(curl, capture_output=True, timeout=60, env=environment)
    assert expected in ran.stdout, ran
    page.run("document.querySelector('#method').value = 'GET'")
    page.fill("#query", "a='1' 2&b=\"")
    assert page.text("#curl").startswith("curl '" + url(server, "/score?a=%271%27%202&b=%22") + "'")


def test_binary_bodies_and_queries(page, shared):
    server = shared("mirror.py")
    open_page(page, server)
    page.see("#body-hint", "no sample")
    page.run(
        """(() => {
        const files = new DataTransfer();
        files.items.add(new File([new Uint8Array([137, 80, 0, 255])], "it's.bin"));
        document.querySelector("#file").files = files.files;
        document.querySelector("#file").dispatchEvent(new Event("input", {bubbles: true}));
        })()"""
    )
    assert "--data-binary '@it'\\''s.bin'" in page.text("#curl")
    page.click("#send")
    page.see("#answer-state", "Status 200")
    assert page.text("#answer-body") == "The body is binary."
    assert "4 bytes" in page.text("#facts")
    page.run("document.querySelector('#method').value = 'GET'")
    page.fill("#query", "a=1&b=x y")
    page.click("#send")
    page.see("#answer-body", "{'a': '1', 'b': 'x y'}")


def test_a_hostile_script_cannot_put_markup_on_the_page(page, start):
    server = start("mirror.py", files={"swagger3.1.json": json.dumps(HOSTILE)})
    open_page(page, server)
    page.see("#interface", "Parts of the input")
    assert page.text("#title") == MARK
    assert page.run("document.title") == MARK
    assert page.run("document.querySelectorAll('img').length") == 1
    assert page.run("document.querySelectorAll('script').length") == 1
    assert page.run("document.querySelectorAll('#interface tbody tr').length") <= 200
    page.fill("#body", MARK)
    page.click("#send")
    page.see("#answer-body", MARK)
    assert page.run("document.title") == MARK
    assert page.console == []


def test_errors_are_listed(page, shared):
    server = shared("documented.py", "--error_details")
    open_page(page, server)
    page.fill("#body", json.dumps({"rows": [[1]], "name": ""}))
    page.click("#send")
    page.see("#errors", "ZeroDivisionError: division by zero")
    page.run("document.querySelector('#error-list details').open = true")
    assert "Traceback" in page.text("#error-list details")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_people_with_a_screen_reader_or_a_keyboard_can_use_it(page, shared, scheme):
    """axe-core judges the page, if AXE_CORE names the file axe.min.js of that package (npm)."""
    server = shared("documented.py", "--error_details")
    open_page(page, server)
    page.see("#body-hint", "The sample")
    page.click("#send")
    page.see("#answer-state", "Status 200")
    for width, height in ((1280, 1000), (360, 740)):
        page.show(width, height, scheme)
        assert page.run("document.documentElement.scrollWidth <= window.innerWidth"), "the page scrolls to the side"
    names = page.run(
        """[...document.querySelectorAll("input, select, textarea, button, a, summary")]
        .filter((each) => each.checkVisibility() && !(each.labels?.[0] ?? each).textContent.trim())
        .map((each) => each.outerHTML)"""
    )
    assert names == []
    page.run("document.activeElement.blur()")
    seen = set()
    for _ in range(60):
        page.press("Tab", code=9)
        seen.add(page.run("document.activeElement.id || document.activeElement.dataset.copy || ''"))
    assert {"method", "query", "content-type", "file", "body", "send", "sample", "curl", "python"} <= seen
    axe = os.environ.get("AXE_CORE")
    if axe is None:
        pytest.skip("axe-core is not there (AXE_CORE)")
    page.show(1280, 1000, scheme)
    page.run(Path(axe).read_text(encoding="utf-8") + "; 0")
    found = page.run("axe.run(document).then((done) => done.violations)")
    told = [(each["id"], each["help"], [node["html"] for node in each["nodes"]]) for each in found]
    assert told == []
