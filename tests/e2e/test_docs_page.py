"""``/docs``: where it is, who is led there, what its headers allow. ``test_docs_in_browser.py`` uses the page."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import pytest
from harness import KEPT, eventually

pytestmark = pytest.mark.any_worker_class

HTML = "text/html; charset=utf-8"
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@pytest.fixture
def server(shared):
    return shared("documented.py")


# ---- What is sent


def test_the_page_stands_alone(server):
    reply = server.get("/docs")
    assert (reply.status, reply["content-type"]) == (200, HTML)
    assert reply["x-request-id"]
    assert reply["x-ms-server-version"]
    assert (reply["x-content-type-options"], reply["cache-control"]) == ("nosniff", "no-store")
    assert not re.search(
        r"\b(?:https?:)?//[\w.-]+\.\w", re.sub(r"<script>.*</script>", "", reply.text, flags=re.DOTALL)
    )
    assert not re.search(r"<(?:link|script|img|iframe)\b[^>]*(?:src|href)=\"(?!data:,)", reply.text)


def test_the_policy_lets_nothing_run_but_the_page_itself(server):
    reply = server.get("/docs")
    policy = dict(part.strip().partition(" ")[::2] for part in (reply["content-security-policy"] or "").split(";"))

    def hashed(name):
        (text,) = re.findall(rf"<{name}>(.*?)</{name}>", reply.text, re.DOTALL)
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    assert policy == {
        "default-src": "'none'",
        "style-src": hashed("style"),
        "script-src": hashed("script"),
        "connect-src": "'self'",
        "img-src": "data: blob:",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }


def test_only_browsers_are_led_there(server):
    page = server.request("GET", "/", headers=BROWSER)
    assert (page.status, page["content-type"], page["vary"]) == (200, HTML, "Accept")
    assert "Healthy" in page.text
    assert 'href="docs"' in page.text
    assert (page["content-security-policy"] or "").startswith("default-src 'none'; style-src 'sha256-")
    for accept in (None, "*/*", "text/plain", "application/json"):
        reply = server.request("GET", "/", headers={"Accept": accept} if accept else {})
        assert (reply.body, reply["content-type"], reply["vary"], reply["content-security-policy"]) == (
            *(b"Healthy", HTML),
            *(None, None),
        )
    for target in ("/livez", "/readyz"):
        assert server.request("GET", target, headers=BROWSER).body in (b"Alive", b"Ready")


def test_it_is_a_route_like_the_others(server):
    with server.connect() as connection:
        head = connection.exchange("HEAD", "/docs", headers=KEPT)
        assert (head.status, head.body) == (200, b"")
        assert int(head["content-length"] or 0) > 10_000
        options = connection.exchange("OPTIONS", "/docs", headers=KEPT)
        assert (options.status, options["allow"]) == (200, "GET, HEAD, OPTIONS")
        refused = connection.exchange("POST", "/docs", headers=KEPT)
        assert (refused.status, refused.json()["message"]) == (405, "The method is not allowed for the requested URL.")
    assert server.get("//docs").status == 200
    assert server.get("/docs/").status == 404


def test_it_has_a_label_in_the_metrics_and_no_line_in_the_log(server):
    server.get("/docs?x=1")
    series = 'http_server_request_duration_seconds_count{http_request_method="GET",http_route="/docs"'
    eventually(lambda: series in server.get("/metrics").text, "the page is counted")
    server.score("{}")
    server.wait_for_record("POST /score ")
    assert not [record for record in server.records() if "GET /docs" in record.message and " 200 " in record.message]


def test_docs_off_removes_it(shared):
    server = shared("documented.py", "--docs", "off")
    reply = server.get("/docs")
    assert (reply.status, reply["x-ms-run-function-failed"]) == (404, "False")
    assert server.request("GET", "/", headers=BROWSER).body == b"Healthy"
    assert server.get("/docs?errors").status == 404


def test_the_last_errors_are_shown_with_error_details_only(shared, server):
    server.score("{}")
    assert server.get("/docs?errors").status == 404
    telling = shared("documented.py", "--error_details")
    assert 'data-errors="on"' in telling.get("/docs").text
    body = json.dumps({"rows": [[1]], "name": ""})
    assert telling.score(body, **{"Content_Type": "application/json", "x_request_id": "my-error"}).status == 500
    reply = telling.get("/docs?errors")
    assert (reply.status, reply["cache-control"]) == (200, "no-store")
    error = reply.json()[0]
    assert (error["method"], error["target"], error["status"]) == ("POST", "/score", 500)
    assert error["location"].endswith("documented.py:15 ZeroDivisionError")
    assert json.loads(error["reply"])["error"] == "ZeroDivisionError: division by zero"
