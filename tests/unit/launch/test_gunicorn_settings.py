"""What is said about settings of gunicorn, which have no effect here."""

from __future__ import annotations

from pathlib import Path

import pytest

from azureml_inference_server_http.launch import gunicorn_settings


def of_variable(text: str) -> list[str]:
    return gunicorn_settings.warnings({"GUNICORN_CMD_ARGS": text}, "/nonexistent")


def advice(text: str) -> dict[str, str]:
    """The setting to use instead, by argument."""
    (line,) = of_variable(text)
    start = "GUNICORN_CMD_ARGS has no effect: gunicorn does not run here. Use instead: "
    assert line.startswith(start)
    assert line.endswith(".")
    return dict(pair.split(" -> ") for pair in line[len(start) : -1].split("; "))  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("--threads 4", {"--threads": "--worker_class thread, with WORKER_COUNT as the number of threads"}),
        ("--timeout=5", {"--timeout": "WORKER_TIMEOUT"}),
        ("-t 5", {"-t": "WORKER_TIMEOUT"}),
        ("-t5", {"-t": "WORKER_TIMEOUT"}),
        ("--workers 2 -w2", {"--workers": "WORKER_COUNT", "-w": "WORKER_COUNT"}),
        ("--max-requests 9", {"--max-requests": "--max_requests"}),
        ("-b 0.0.0.0:80 --bind [::]:80", {"-b": "--host and --port", "--bind": "--host and --port"}),
        ("--graceful-timeout 3", {"--graceful-timeout": "--graceful_timeout"}),
        ("--keep-alive 3", {"--keep-alive": "--keep_alive"}),
        ("--preload", {"--preload": "WORKER_PRELOAD=true"}),
        ("--log-level debug", {"--log-level": "AZUREML_LOG_LEVEL"}),
        ("--access-logfile -", {"--access-logfile": "a logger gunicorn.access in logging.json"}),
        ("--worker-tmp-dir /dev/shm", {"--worker-tmp-dir": "no setting here, workers need no such folder"}),
        ("-k gthread", {"-k": "--worker_class (process or thread)"}),
        ("--bogus -Z", {"--bogus": "no setting here", "-Z": "no setting here"}),
        # An abbreviation that gunicorn takes, and one that it calls ambiguous.
        (
            "--thr 4 --work 2",
            {"--thr": "--worker_class thread, with WORKER_COUNT as the number of threads", "--work": "no setting here"},
        ),
        ("--timeout -1", {"--timeout": "WORKER_TIMEOUT"}),
        ("--timeout 5 --timeout 6", {"--timeout": "WORKER_TIMEOUT"}),
        (
            "--access-logformat '%(h)s -b' --timeout 5",
            {
                "--access-logformat": "a formatter of the logger gunicorn.access in logging.json",
                "--timeout": "WORKER_TIMEOUT",
            },
        ),
        ("--timeout 5 'not closed", {"--timeout": "WORKER_TIMEOUT"}),
    ],
)
def test_each_argument_is_named_with_its_setting_here(text: str, expected: dict[str, str]) -> None:
    assert advice(text) == expected


def test_values_are_not_repeated() -> None:
    (line,) = of_variable("--keyfile /secret --env PASSWORD=secret --threads=4")
    assert "secret" not in line


@pytest.mark.parametrize("text", ["", " "])
def test_nothing_is_said_without_reason(text: str) -> None:
    assert of_variable(text) == []


def test_words_that_are_no_arguments() -> None:
    assert of_variable("x") == ["GUNICORN_CMD_ARGS has no effect: gunicorn does not run here."]


def test_names_of_a_file_are_read_without_running_it(tmp_path: Path) -> None:
    file = tmp_path / "gunicorn.conf.py"
    file.write_text(
        "import os\nraise SystemExit\nworkers = threads = os.cpu_count()\nworker_class: str = 'gevent'\n"
        "def post_fork(server, worker):\n    timeout = 5\nkeepalive += 1\n"
    )
    assert gunicorn_settings.warnings({}, str(file)) == [
        f"The file {file} has no effect: gunicorn does not run here. Use instead: workers -> WORKER_COUNT; "
        "threads -> --worker_class thread, with WORKER_COUNT as the number of threads; worker_class -> --worker_class "
        "(process or thread); post_fork -> no setting here; keepalive -> --keep_alive."
    ]


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"import os\n", b"def (", b"\0", None])
def test_files_that_set_nothing_are_no_matter(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "gunicorn.conf.py"
    if content is not None:
        file.write_bytes(content)
    assert gunicorn_settings.warnings({}, str(file)) == []


def test_no_name_stands_in_the_table_twice() -> None:
    names = [name for row in gunicorn_settings._TABLE for name in (row.name, *row.arguments)]
    assert len(names) == len({*names})
