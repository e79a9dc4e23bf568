"""Servers for the tests of the supervisor's decisions."""

from __future__ import annotations

import pytest
from supervisor_world import World


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
