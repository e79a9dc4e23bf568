"""Fixtures for several files: the records of our logger, and servers for the tests of the
supervisor's decisions."""

from __future__ import annotations

import logging

import pytest
from supervisor_world import World


@pytest.fixture
def records(caplog, monkeypatch):
    """The records logged so far, each with level and text."""
    monkeypatch.setattr(logging.getLogger("azmlinfsrv"), "propagate", True)
    caplog.set_level(logging.DEBUG, "azmlinfsrv")
    return lambda: [(record.levelname, record.getMessage()) for record in caplog.records]


@pytest.fixture
def one():
    """A server with one worker that serves."""
    world = World()
    world.ready(*world.workers)
    return world


@pytest.fixture
def two():
    """A server with two workers that serve."""
    world = World(worker_count=2)
    world.ready(*world.workers)
    return world
