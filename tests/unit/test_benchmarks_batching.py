"""The page of ``benchmarks/batching.py``, and how it starts the servers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import batching
from benchmarks.results import Results, Sample

MACHINE = {"cpu": "A", "cores": 2, "memory_gib": 4, "kernel": "Linux", "python": "3", "wrk": "4", "date": "today"}


@pytest.fixture
def page(tmp_path, monkeypatch):
    monkeypatch.setattr(batching, "PAGE", tmp_path / "page.md")

    def write(*samples, versions=None):
        batching.write(Results(MACHINE, 1, 3, versions or {}, [], list(samples)))
        return batching.PAGE.read_text("utf-8")

    return write


def measured(server, rps):
    return Sample("network.64", server, 0, {"rps": rps, "p50_ms": 1.0, "p99_ms": 2.0})


def test_the_page_has_the_figures_of_the_file(tmp_path, monkeypatch):
    committed = batching.PAGE.read_text("utf-8")
    monkeypatch.setattr(batching, "PAGE", tmp_path / "page.md")
    batching.write(Results.load(batching.FIGURES))
    assert batching.PAGE.read_text("utf-8") == committed


def test_servers_that_were_not_measured_are_left_out(page):
    text = page(measured("off", 100), measured("ray", 250), versions={"ray": {"ray": "2.1"}})
    assert "| network | 64 | Ray Serve, batches of 32 | 250 | 1.00 | 2.00 | 2.50 |" in text
    assert "1 rounds of 3 s. Ray Serve 2.1.\n" in text
    assert "LitServe" not in text
    assert "Without a server" not in text


def test_the_page_says_what_the_model_itself_takes(page):
    text = page(measured("off", 100), Sample("network", batching.ALONE, 0, {"one_ms": 2.0, "batch_ms": 16.0}))
    assert "a call of the network takes 2.00 ms for one row and 16.00 ms for 32, 4.0 times less for each row.\n" in text


@pytest.mark.parametrize("server", batching.NAMES)
def test_each_server_has_a_program_that_exists(server):
    command = batching.command(Path("python"), server, "network", 1234)
    program = command[1] if server in batching.PEERS else command[4]
    assert Path(program).exists(), json.dumps(command)
