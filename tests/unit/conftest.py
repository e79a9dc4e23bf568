"""The records of our logger, for several files."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture
def records(caplog, monkeypatch):
    """The records logged so far, each with level and text."""
    monkeypatch.setattr(logging.getLogger("azmlinfsrv"), "propagate", True)
    caplog.set_level(logging.DEBUG, "azmlinfsrv")
    return lambda: [(record.levelname, record.getMessage()) for record in caplog.records]
