"""What counts as a measurement of a validation."""

from __future__ import annotations

from azureml_inference_server_http.generate.measuring import read
from azureml_inference_server_http.generate.sizing import MIB, Measured
from azureml_inference_server_http.validation import findings
from azureml_inference_server_http.validation.findings import BY_NAME, Finding
from azureml_inference_server_http.validation.report import FAILED, PASSED, SKIPPED, Report, Step

STARTED = (Step(findings.IMPORT, PASSED, "", 2.2), Step(findings.INIT, PASSED, "", 1.3))


def report(*steps: Step, found: tuple[Finding, ...] = ()) -> Report:
    return Report("/app/score.py", "/app", steps, found, 4.0, 3.5)


def test_a_start_and_its_samples() -> None:
    measured = read(report(*STARTED, Step(findings.SAMPLE, PASSED, "", 0.1, "a.json")), 100 * MIB)
    assert measured.found == Measured(5, 128, 1)
    assert measured.sentence.endswith("one worker needs up to 128 MiB with 1 sample.")


def test_without_samples_the_remark_says_how_to_send_some() -> None:
    measured = read(report(*STARTED, Step(findings.SAMPLE, SKIPPED, "none")), 100 * MIB)
    assert measured.found == Measured(5, 128, 0)
    assert "--sample FILE" in measured.sentence


def test_failed_samples_are_told() -> None:
    measured = read(report(*STARTED, Step(findings.SAMPLE, FAILED, "", 0.1, "a.json")), 100 * MIB)
    assert measured.found is not None
    assert "of which 1 failed" in measured.sentence


def test_a_script_that_does_not_start_is_not_measured() -> None:
    found = (Finding(BY_NAME["init-failed"], "KeyError: 'MODEL'", findings.INIT),)
    measured = read(report(STARTED[0], Step(findings.INIT, FAILED, "", 0.1), found=found), 100 * MIB)
    assert measured.found is None
    assert "needs are guessed: KeyError: 'MODEL'" in measured.sentence
    assert read(report(), 0).found is None
