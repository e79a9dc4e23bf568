"""Which files are samples, and what they may say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from azureml_inference_server_http.validation import client, samples
from azureml_inference_server_http.validation.samples import SampleError


def write(path: Path, value: Any) -> str:
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return str(path)


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.json", '{"data": [1]}', "application/json"),
        ("a.txt", "hello", "text/plain"),
        ("a.csv", "x,y", "text/csv"),
        ("a.png", "...", "image/png"),
        ("a.JPEG", "...", "image/jpeg"),
        ("a.bin", "...", "application/octet-stream"),
        ("a", "...", "application/octet-stream"),
    ],
)
def test_plain_bodies(tmp_path: Path, name: str, content: str, kind: str):
    sample = samples.read(write(tmp_path / name, content))
    assert (sample.name, sample.method, sample.target) == (name, "POST", "/score")
    assert (sample.body, sample.headers, sample.expected) == (content.encode(), {"content-type": kind}, None)


def test_a_described_request(tmp_path: Path):
    described = {"method": "get", "query": {"a": 1, "b": "x y"}, "headers": {"X-Kind": "1"}}
    sample = samples.read(write(tmp_path / "one.request.json", described))
    assert (sample.method, sample.target) == ("GET", "/score?a=1&b=x+y")
    assert (sample.headers, sample.body) == ({"X-Kind": "1"}, b"")


@pytest.mark.parametrize(
    ("body", "sent", "kind"),
    [({"a": 1}, b'{"a": 1}', "application/json"), ("plain", b"plain", "text/plain"), ([1], b"[1]", "application/json")],
)
def test_bodies_of_a_described_request(tmp_path: Path, body: object, sent: bytes, kind: str):
    sample = samples.read(write(tmp_path / "one.request.json", {"body": body}))
    assert (sample.body, sample.headers) == (sent, {"content-type": kind})


def test_a_type_of_ones_own_wins(tmp_path: Path):
    described = {"body": {"a": 1}, "headers": {"Content-Type": "application/vnd.x+json"}}
    assert samples.read(write(tmp_path / "one.request.json", described)).headers == described["headers"]


def test_a_header_that_is_null_is_not_sent(tmp_path: Path):
    described = {"body": "plain", "headers": {"Content-Type": None, "X-Kind": "1"}}
    assert samples.read(write(tmp_path / "one.request.json", described)).headers == {"X-Kind": "1"}


def test_headers_of_the_command_replace_those_of_the_sample():
    merged = client._merged(
        {"authorization": "redacted", "a": "1"}, {"Authorization": "Bearer x"}, {"Connection": "close"}
    )
    assert merged == {"Authorization": "Bearer x", "a": "1", "Connection": "close"}


def test_a_body_in_a_file_of_its_own(tmp_path: Path):
    write(tmp_path / "image.png", "bytes")
    sample = samples.read(write(tmp_path / "one.request.json", {"body_file": "image.png"}))
    assert (sample.body, sample.headers) == (b"bytes", {"content-type": "image/png"})


@pytest.mark.parametrize(
    ("described", "fault"),
    [
        ({"bdoy": 1}, "unknown key 'bdoy'"),
        ([1], "must hold a JSON object"),
        ({"method": "G T"}, '"method"'),
        ({"path": "score"}, '"path"'),
        ({"query": 1}, '"query"'),
        ({"headers": {"a": 1}}, '"headers"'),
        ({"headers": {"a": "b\r\nc: d"}}, "line ends"),
        ({"body": 1, "body_file": "x"}, "both"),
        ({"body_file": "absent.png"}, "cannot be read"),
        ("{", "is not JSON"),
    ],
)
def test_what_is_refused(tmp_path: Path, described: object, fault: str):
    with pytest.raises(SampleError, match=fault):
        samples.read(write(tmp_path / "one.request.json", described))


def test_a_json_body_must_be_json(tmp_path: Path):
    with pytest.raises(SampleError, match="is not JSON"):
        samples.read(write(tmp_path / "a.json", "{'a': 1}"))


# ---- Expected answers


@pytest.mark.parametrize("name", ["a.json", "a.request.json", "a.txt"])
def test_an_expected_answer_is_found_beside_the_sample(tmp_path: Path, name: str):
    path = write(tmp_path / name, "{}")
    write(tmp_path / "a.response.json", {"scores": [1]})
    expected = samples.read(path).expected
    assert expected is not None
    assert (expected.body, expected.status, expected.has_body) == ({"scores": [1]}, None, True)


def test_the_full_name_comes_first(tmp_path: Path):
    path = write(tmp_path / "a.txt", "x")
    write(tmp_path / "a.response.json", 1)
    write(tmp_path / "a.txt.response.json", 2)
    expected = samples.read(path).expected
    assert expected is not None
    assert expected.body == 2


def test_a_described_answer(tmp_path: Path):
    path = write(tmp_path / "a.json", "{}")
    described = {"status": 404, "headers": {"X-Kind": "a"}, "body": {"m": 1}, "ignore": ["$.m"]}
    write(tmp_path / "a.response.json", described)
    expected = samples.read(path).expected
    assert expected is not None
    assert (expected.status, expected.headers, expected.body, expected.ignore) == (
        *(404, {"X-Kind": "a"}, {"m": 1}, (("m",),)),
    )


@pytest.mark.parametrize(("ignored", "fault"), [(["$.a["], r"'\$\.a\[' is no JSON path"), ("$.a", "must be a list")])
def test_parts_to_ignore_are_read_with_the_sample(tmp_path: Path, ignored: object, fault: str):
    path = write(tmp_path / "a.json", "{}")
    write(tmp_path / "a.response.json", {"body": 1, "ignore": ignored})
    with pytest.raises(SampleError, match=rf'a\.response\.json: "ignore".*{fault}'):
        samples.read(path)


@pytest.mark.parametrize(
    "body", [{"status": "ok"}, {"status": 200, "time": 3}, {"headers": {}}, {}, 5, None, {"status": True}]
)
def test_an_answer_that_only_looks_described(tmp_path: Path, body: object):
    path = write(tmp_path / "a.json", "{}")
    write(tmp_path / "a.response.json", body)
    expected = samples.read(path).expected
    assert expected is not None
    assert (expected.status, expected.has_body, expected.body) == (None, True, body)


def test_a_status_alone(tmp_path: Path):
    path = write(tmp_path / "a.json", "{}")
    write(tmp_path / "a.response.json", {"status": 400})
    expected = samples.read(path).expected
    assert expected is not None
    assert (expected.status, expected.has_body) == (400, False)


def test_an_expected_body_in_a_file(tmp_path: Path):
    path = write(tmp_path / "a.json", "{}")
    write(tmp_path / "a.out.png", "png")
    write(tmp_path / "a.response.json", {"body_file": "a.out.png"})
    expected = samples.read(path).expected
    assert expected is not None
    assert (expected.body, expected.is_json) == (b"png", False)


# ---- Folders


def test_samples_of_a_folder(tmp_path: Path):
    for name in ("b.json", "b.response.json", "a.txt", ".hidden", "notes.md"):
        write(tmp_path / name, "{}")
    write(tmp_path / "c.request.json", {"body_file": "c.png"})
    write(tmp_path / "c.png", "png")
    (tmp_path / "folder").mkdir()
    assert [Path(path).name for path in samples.in_folder(str(tmp_path))] == ["a.txt", "b.json", "c.request.json"]


def test_a_sample_of_a_schema():
    sample = samples.from_json("from @input_schema", {"data": [1]})
    assert (sample.method, sample.target, sample.body) == ("POST", "/score", b'{"data": [1]}')
