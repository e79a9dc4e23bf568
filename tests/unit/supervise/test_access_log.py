"""Records of the logger gunicorn.access: what gunicorn's own had (contract section 13)."""

from __future__ import annotations

import logging
import re

import pytest

from azureml_inference_server_http.supervise import access_log

FIELDS = {
    "method": "POST",
    "uri": "/score?a=1",
    "path": "/score",
    "query": "a=1",
    "version": "HTTP/1.1",
    "client": "10.0.0.7",
    "authorization": "-",
    "referer": "http://ref/",
    "agent": 'my "agent"',
    "microseconds": "1234567",
    "status": "200",
    "sent": "3",
    "worker_pid": "77",
}


@pytest.fixture
def logged(caplog):
    """Log a request. Returns the record."""
    caplog.set_level(logging.INFO, access_log.NAME)

    def log(**changed: str) -> logging.LogRecord:
        caplog.clear()
        access_log.log({**FIELDS, **changed})
        (record,) = caplog.records
        return record

    return log


def test_the_message_is_gunicorns(logged):
    assert re.fullmatch(
        r'10\.0\.0\.7 - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "POST /score\?a=1 HTTP/1\.1" 200 3 '
        r'"http://ref/" "my \\"agent\\""',
        logged().getMessage(),
    )


def test_the_record_has_format_and_atoms_as_gunicorns_has(logged):
    record = logged()
    assert (record.name, record.levelname, record.msg) == ("gunicorn.access", "INFO", access_log.FORMAT)
    atoms = record.args
    assert {key: atoms[key] for key in "lsmUqHbBTDMLp"} == {
        "l": "-",
        "s": "200",
        "m": "POST",
        "U": "/score",
        "q": "a=1",
        "H": "HTTP/1.1",
        "b": "3",
        "B": 3,
        "T": 1,
        "D": 1234567,
        "M": 1234,
        "L": "1.234567",
        "p": "<77>",
    }
    assert atoms["{x-request-id}i"] == "-"
    assert record.worker_pid == 77


@pytest.mark.parametrize(
    ("authorization", "user"),
    [
        ("-", "-"),
        ("Basic dXNlcjpwYXNz", "user"),
        ("basic  dXNlcg==", "user"),
        ("Basic %%%", "-"),
        ("Basic", "-"),
        ("Basic /w==", "-"),
        ("Bearer dXNlcjpwYXNz", "-"),
        # ESC [31m, a newline, and a quote, hidden by the coding.
        ("Basic G1szMW0KIjo=", r"\x1b[31m\n\""),
    ],
)
def test_the_user_of_a_basic_authorization(logged, authorization, user):
    message = logged(authorization=authorization).getMessage()
    assert message.split(" [")[0] == f"10.0.0.7 - {user}".split(" [")[0]
    assert logged(authorization=authorization).args["u"] == user
    assert "pass" not in message


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"loggers": {"gunicorn.access": {}}}, True),
        ({"loggers": {"gunicorn": {}}}, False),
        ({"loggers": None}, False),
        ({}, False),
    ],
)
def test_whether_a_configuration_names_the_logger(config, named):
    assert access_log.is_named(config) is named
