"""Which changes of files count for --reload, and when: without files and clocks."""

from __future__ import annotations

import os

import pytest

from azureml_inference_server_http.supervise.file_changes import (
    ABSENT,
    LONGEST,
    PAUSE,
    PAUSE_FACTOR,
    QUIET,
    Changes,
    describe,
    pause_after,
)

# A little more, because the sum of two such numbers is rounded.
LATER = QUIET + 0.001


@pytest.fixture
def changes():
    return Changes({"score.py": "1", "helper.py": "1", "logging.json": ABSENT})


def seen(**more):
    names = {"score": "score.py", "helper": "helper.py", "logging": "logging.json", "added": "added.py"}
    found = {"score.py": "1", "helper.py": "1", "logging.json": ABSENT}
    return {**found, **{names[name]: value for name, value in more.items()}}


def test_files_that_stay_the_same_have_not_changed(changes):
    assert changes.look(seen(), 0.0) == []
    assert changes.look(seen(), 100.0) == []


def test_a_change_is_reported_once_when_nothing_follows(changes):
    assert changes.look(seen(score="2"), 10.0) == []
    assert changes.look(seen(score="2"), 10.0 + LATER) == ["score.py"]
    assert changes.look(seen(score="2"), 20.0) == []
    assert changes.look(seen(score="2"), 30.0) == []


def test_a_burst_of_changes_is_one_report(changes):
    for step in range(5):
        assert changes.look(seen(score=f"s{step}"), 10.0 + step * QUIET / 2) == []
    assert changes.look(seen(score="s4", helper="2"), 10.0 + 3 * QUIET) == []
    assert changes.look(seen(score="s4", helper="2"), 10.0 + 3 * QUIET + LATER) == ["helper.py", "score.py"]


def test_a_file_that_changes_all_the_time_is_reported_now_and_then(changes):
    times = [step * QUIET / 2 for step in range(1000)]
    reports = [now for now in times if changes.look(seen(score=str(now)), now)]
    gaps = [later - earlier for earlier, later in zip(reports, reports[1:])]
    assert reports
    assert all(LONGEST <= gap < LONGEST + 2 * QUIET for gap in gaps)


def test_a_file_that_is_away_for_a_moment_counts_as_written(changes):
    # An editor renames the old file before it writes the new one.
    assert changes.look(seen(score=ABSENT), 10.0) == []
    assert changes.look(seen(score="2"), 10.0 + QUIET / 2) == []
    assert changes.look(seen(score="2"), 10.0 + 2 * QUIET) == ["score.py"]


def test_a_file_that_is_as_before_has_not_changed(changes):
    assert changes.look(seen(score="2"), 10.0) == []
    assert changes.look(seen(), 10.0 + QUIET / 2) == []
    assert changes.look(seen(), 20.0) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [({}, {"logging": "1"}), ({}, {"added": "1"}), ({}, {"helper": ABSENT})],
    ids=["created", "a new file of a folder", "removed"],
)
def test_files_that_come_and_go_have_changed(changes, before, after):
    assert changes.look(seen(**before), 10.0) == []
    assert changes.look(seen(**after), 20.0) == []
    assert len(changes.look(seen(**after), 20.0 + LATER)) == 1


def test_a_file_of_a_folder_that_is_listed_no_more_is_removed():
    changes = Changes({"a.py": "1", "b.py": "1"})
    assert changes.look({"a.py": "1"}, 10.0) == []
    assert changes.look({"a.py": "1"}, 10.0 + LATER) == ["b.py"]
    assert changes.look({"a.py": "1"}, 20.0) == []


def test_a_file_that_changed_between_its_import_and_the_first_look_has_changed(changes):
    changes.add("added.py", "1")
    assert "added.py" in changes.paths
    assert changes.look(seen(added="2"), 10.0) == []
    assert changes.look(seen(added="2"), 10.0 + LATER) == ["added.py"]


def test_a_second_import_does_not_hide_a_change_that_waits(changes):
    assert changes.look(seen(helper="2"), 10.0) == []
    changes.add("helper.py", "2")
    assert changes.look(seen(helper="2"), 10.0 + LATER) == ["helper.py"]


def test_the_pause_grows_with_the_time_for_a_look():
    assert pause_after(0.0) == pause_after(PAUSE / PAUSE_FACTOR / 2) == PAUSE
    assert pause_after(0.5) == 0.5 * PAUSE_FACTOR


def test_files_are_named_relative_to_the_folder():
    folder = os.path.join(os.sep, "work")
    assert describe([os.path.join(folder, "score.py")], folder) == "score.py"
    assert (
        describe([os.path.join(folder, "a", "b.py"), "/x"], folder) == os.path.join("a", "b.py") + " and 1 other file"
    )
    assert describe(["/workers/a.py", "/x", "/y"], folder) == "/workers/a.py and 2 other files"
