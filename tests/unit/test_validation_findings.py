"""The table of findings, and the page that is made from it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from azureml_inference_server_http.validation import command
from azureml_inference_server_http.validation.findings import ERROR, KINDS, NOTE, WARNING, Kind

ROOT = Path(__file__).resolve().parents[2]


def test_codes_and_names_are_unique_and_in_order():
    codes = [kind.code for kind in KINDS]
    assert codes == sorted(set(codes))
    assert len({kind.name for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_kind_is_complete(kind: Kind):
    assert re.fullmatch(r"AZ[1-8]\d\d", kind.code)
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", kind.name)
    assert kind.severity in (ERROR, WARNING, NOTE)
    assert kind.explanation.endswith(".")
    assert kind.remedy.endswith(".")
    assert kind.example.strip() == kind.example != ""


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_kind_is_raised_somewhere(kind: Kind):
    package = ROOT / "azureml_inference_server_http" / "validation"
    sources = "".join(path.read_text() for path in package.glob("*.py") if path.name != "findings.py")
    # no-init and no-run are made from the name of the function.
    assert f'"{kind.name}"' in sources or (kind.name in ("no-init", "no-run") and 'f"no-{' in sources)


def test_an_explanation_has_all_of_it():
    kind = KINDS[0]
    text = command.explain(kind)
    assert text.startswith(f"{kind.code} {kind.name} ({kind.severity})\n")
    for part in (kind.explanation, kind.remedy, kind.example):
        assert part.replace("`", "") in text
