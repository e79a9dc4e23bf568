"""The four formats of a report."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import pytest

from azureml_inference_server_http.validation import findings, report
from azureml_inference_server_http.validation.findings import BY_NAME, Finding, Place
from azureml_inference_server_http.validation.report import FAILED, PASSED, SKIPPED, Report, Step

NASTY = 'a "b" <c> & 100%\r\n::error::x,y:z \x00\x1b[31m ü'


def made(*found: Finding, steps: tuple[Step, ...] = ()) -> Report:
    return Report("/app/score.py", "/app", steps, found, 1.5, 1.25)


RAISED = Finding(
    BY_NAME["run-failed"],
    "KeyError: 'rows'",
    findings.SAMPLE,
    Place("/app/score.py", 9),
    "a.json",
    "Traceback\nKeyError",
)
NOTE = Finding(BY_NAME["not-called"], "no sample", findings.SAMPLE)
STEPS = (
    Step(findings.SETTINGS, PASSED, "no model folder"),
    Step(findings.INIT, PASSED, "0.10 s", 0.1),
    Step(findings.SAMPLE, FAILED, "status 500", 0.01, "a.json"),
    Step(findings.SAMPLE, SKIPPED, "", None, "b.json"),
)


def test_only_errors_and_warnings_make_a_script_invalid():
    assert made(NOTE).is_valid
    assert not made(NOTE, RAISED).is_valid
    assert not made(RAISED._replace(kind=BY_NAME["json-twice"])).is_valid


def test_text():
    text = report.text(made(RAISED, steps=STEPS), colours=False, marks=True)
    assert "✓ settings       no model folder\n" in text
    assert "✗ sample a.json  status 500\n" in text
    assert "- sample b.json\n" in text
    assert "score.py:9: AZ402 run-failed (sample a.json)\n  KeyError: 'rows'\n  | Traceback\n  | KeyError\n" in text
    assert "score.py has 1 finding (1.50 s, of which 1.25 s in the script)" in text
    assert "\x1b" not in text


def test_text_cannot_steer_the_terminal():
    nasty = RAISED._replace(message=NASTY, traceback=NASTY)
    text = report.text(made(nasty, steps=(Step(findings.INIT, FAILED, NASTY),)), colours=False, marks=True)
    assert "\x1b" not in text
    assert "\r" not in text


def test_text_without_marks_is_ascii():
    assert report.text(made(RAISED, steps=STEPS), colours=False, marks=False).isascii()


def test_text_in_colour():
    text = report.text(made(RAISED, steps=STEPS), colours=True, marks=True)
    assert "\x1b[31m✗\x1b[0m" in text
    plain = report.text(made(RAISED, steps=STEPS), colours=False, marks=True)
    assert re.sub(r"\x1b\[\d+m", "", text) == plain


def test_a_valid_script():
    assert report.text(made(), colours=False, marks=True).endswith(
        "score.py is valid (1.50 s, of which 1.25 s in the script).\n"
    )


def test_json():
    document = json.loads(report.as_json(made(RAISED, steps=STEPS)))
    assert (document["version"], document["valid"], document["script"]) == (1, False, "/app/score.py")
    assert [step["outcome"] for step in document["steps"]] == [PASSED, PASSED, FAILED, SKIPPED]
    (found,) = document["findings"]
    assert (found["code"], found["file"], found["line"], found["sample"]) == ("AZ402", "/app/score.py", 9, "a.json")


# ---- JUnit, by the schema that Jenkins, GitLab and Azure Pipelines read


def parsed(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text.encode())


def assert_follows_the_schema(root: ElementTree.Element) -> None:
    assert root.tag == "testsuites"
    for suite in root:
        assert suite.tag == "testsuite"
        assert {"name", "tests", "failures", "errors", "skipped", "time"} <= set(suite.attrib)
        cases = list(suite)
        assert {case.tag for case in cases} == {"testcase"}
        assert int(suite.attrib["tests"]) == len(cases)
        assert int(suite.attrib["failures"]) == len(suite.findall("testcase/failure"))
        assert int(suite.attrib["skipped"]) == len(suite.findall("testcase/skipped"))
        for case in cases:
            assert {"name", "classname", "time"} <= set(case.attrib)
            float(case.attrib["time"])
            assert len(case) <= 1
            for child in case:
                assert child.tag in ("failure", "skipped")
                assert "message" in child.attrib


def test_junit():
    root = parsed(report.junit(made(RAISED, NOTE, steps=STEPS)))
    assert_follows_the_schema(root)
    failure = root.find("testsuite/testcase[@name='sample a.json']/failure")
    assert failure is not None
    assert failure.attrib == {"message": "AZ402 run-failed: KeyError: 'rows'", "type": "AZ402"}
    case = root.find("testsuite/testcase[@name='sample a.json']")
    assert case is not None
    assert (case.attrib["file"], case.attrib["line"]) == ("score.py", "9")
    assert [case.attrib["name"] for case in root.iter("testcase") if case.find("skipped") is not None] == [
        "sample b.json"
    ]


def test_junit_holds_any_text():
    nasty = RAISED._replace(message=NASTY, traceback=NASTY, sample=NASTY)
    steps = (Step(findings.SAMPLE, FAILED, NASTY, 1.0, NASTY),)
    root = parsed(report.junit(made(nasty, steps=steps)))
    assert_follows_the_schema(root)
    failure = root.find("testsuite/testcase/failure")
    assert failure is not None
    assert failure.attrib["message"].endswith('a "b" <c> & 100%\r\n::error::x,y:z \ufffd\ufffd[31m ü')


# ---- GitHub


def test_github_points_at_the_line():
    lines = report.github(made(RAISED, NOTE)).splitlines()
    assert lines[0] == (
        "::error file=score.py,line=9,title=AZ402 run-failed::KeyError: 'rows' (sample a.json)"
        "%0ATraceback%0AKeyError%0A" + BY_NAME["run-failed"].remedy.replace("`", "")
    )
    assert lines[1].startswith("::notice title=AZ406 not-called::no sample%0A")
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("part", "escaped"), [("100%", "100%25"), ("a\rb", "a%0Db"), ("a\nb", "a%0Ab"), ("%0A", "%250A")]
)
def test_github_data_is_escaped(part: str, escaped: str):
    line = report.github(made(RAISED._replace(message=part, traceback="")))
    assert (
        line.splitlines()[0]
        .partition("::KeyError")[0]
        .endswith(f"::{escaped} (sample a.json)%0A{BY_NAME['run-failed'].remedy.replace('`', '')}")
    )


def test_github_properties_are_escaped():
    place = Place("/app/a,b:c%d.py", 1)
    line = report.github(made(RAISED._replace(place=place))).splitlines()[0]
    assert line.startswith("::error file=a%2Cb%3Ac%25d.py,line=1,title=")


def test_github_has_one_line_for_each_finding():
    nasty = RAISED._replace(message=NASTY, traceback=NASTY, sample=NASTY)
    assert len(report.github(made(nasty)).split("\n")) == 3
    assert "\r" not in report.github(made(nasty))


def test_files_outside_the_folder_have_their_whole_path():
    assert report.relative("/other/score.py", "/app") == "/other/score.py"
    assert report.shown(Place("/app/a/score.py", None), "/app") == "a/score.py"
