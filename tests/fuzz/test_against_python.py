"""The short run of the fuzzer: the same cases every time, and hypothesis to make what fails
smaller.

``python -m tests.fuzz`` runs longer and with new cases. Both use the same generators, here fed by
hypothesis' random numbers or by a fixed seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from harness import Server
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from . import campaign, documents, results
from .subjects import SCRIPTS, SUBJECTS, Subject

SHORT = settings(
    max_examples=60,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
BY_NAME = {subject.name: subject for subject in SUBJECTS}
NUMBERS = st.randoms(use_true_random=False)


@pytest.fixture(params=SUBJECTS, ids=lambda subject: subject.name)
def subject(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def client(shared: Any, subject: Subject) -> Iterator[campaign.Client]:
    with _client(shared, subject) as client:
        yield client


def _server(shared: Any, subject: Subject) -> Server:
    server: Server = shared(str(SCRIPTS / subject.script), AZUREML_LOG_LEVEL="CRITICAL", **subject.environment)
    return server


def _client(shared: Any, subject: Subject) -> campaign.Client:
    return campaign.Client(_server(shared, subject).port)


def check(client: campaign.Client, case: Any) -> None:
    (reply,) = client.ask([case.request])
    assert reply in case.accepted


def test_inputs_that_hypothesis_chooses(client: campaign.Client, subject: Subject) -> None:
    @SHORT
    @given(NUMBERS)
    def try_one(random: Any) -> None:
        chosen = subject.draw(random, False)
        note(campaign.shown(chosen))
        check(client, subject.case(chosen))

    try_one()


def test_many_random_inputs(shared: Any, client: campaign.Client, subject: Subject) -> None:
    server = _server(shared, subject)
    workers = server.workers()
    report = campaign.run(subject, client, seed=20240229, cases=600)
    assert not report.differing, str(report)
    assert server.workers() == workers


# ---- What chance would seldom find


@pytest.mark.parametrize("kinds", ["l", "t", "d", "ld", "L", "D"])
def test_nesting_of_results(shared: Any, kinds: str) -> None:
    """The native writer leaves results nested deeper than 100 levels to Python, whose own limit
    depends on its version."""
    subject = BY_NAME["results"]
    with _client(shared, subject) as client:
        for depth in (1, 98, 99, 100, 101, 102, 500, 700, 1200, 1700):
            check(client, subject.case(results.shapes.Nested(depth, kinds, [0.1, "é"])))


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"k":', "}"), ("[[1],", "]")])
def test_nesting_of_documents(shared: Any, opening: str, closing: str) -> None:
    """The native parser leaves documents nested deeper than 200 levels to Python, whose own limit
    depends on its version."""
    subject = BY_NAME["JSON bodies"]
    with _client(shared, subject) as client:
        for depth in (1, 196, 197, 198, 199, 200, 201, 202, 500, 800, 1200, 5000):
            text = documents.WRAP[0] + opening * depth + "1" + closing * depth + documents.WRAP[1]
            check(client, subject.case(("application/json", text.encode())))


@pytest.mark.parametrize("text", documents.NEARLY)
def test_what_only_nearly_is_json(shared: Any, text: str) -> None:
    subject = BY_NAME["JSON bodies"]
    with _client(shared, subject) as client:
        for template in (text, documents.WRAP[0] + text + documents.WRAP[1], f'{{"document": [1, {text}]}}'):
            check(client, subject.case(("application/json", template.encode())))


def test_every_cut_of_a_document(shared: Any) -> None:
    subject = BY_NAME["JSON bodies"]
    body = (
        ' {"document": [1, -2.5e-3, "a\\u00e9\\n\\ud83d\\ude00é", {"k": null, "k": [true, NaN]}, -Infinity]} '.encode()
    )
    with _client(shared, subject) as client:
        for end in range(len(body)):
            check(client, subject.case(("application/json", body[:end])))


@pytest.mark.parametrize("encoding", documents.ENCODINGS)
def test_encodings_of_documents(shared: Any, encoding: str) -> None:
    subject = BY_NAME["JSON bodies"]
    with _client(shared, subject) as client:
        for text in ('{"document": "é€"}', "{}", "[1]", "1", '"', ""):
            check(client, subject.case(("application/json", text.encode(encoding, "replace"))))
