"""What is gathered from settings and folders, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from azureml_inference_server_http.generate import azure, facts
from azureml_inference_server_http.generate.facts import Facts, Model
from azureml_inference_server_http.generate.options import UsageError, name_from, parse
from azureml_inference_server_http.launch import settings
from azureml_inference_server_http.launch.settings_table import SETTINGS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    app = tmp_path / "My Flowers 2"
    app.mkdir()
    (app / "score.py").write_text("def init(): ...\ndef run(data): ...\n")
    return app.resolve()


def gather(folder: Path, *options: str, **environment: str) -> tuple[Facts, tuple[str, ...]]:
    flags: Mapping[str, Any] = parse(["docker", "--entry_script", "score.py", *options])
    raw = settings.RawSettings(flags, environment, str(folder))
    return facts.gather(flags, raw, settings.load(raw), None)


def refusal(folder: Path, *options: str, **environment: str) -> str:
    with pytest.raises(UsageError) as caught:
        gather(folder, *options, **environment)
    return str(caught.value)


def test_a_script_without_anything(folder: Path) -> None:
    known, notes = gather(folder)
    assert notes == ()
    assert (known.name, known.image, known.script, known.app_from_out) == (
        "my-flowers-2",
        "my-flowers-2:1",
        "score.py",
        ".",
    )
    assert known.arguments == ("--entry_script", "score.py", "--port", "5001")
    assert (known.given, known.secrets, known.model, known.requirements) == ((), (), None, None)


def test_settings_of_all_sources_become_variables(folder: Path) -> None:
    (folder / "other.json").write_text('{"AZMLINFSRV_MAX_QUEUE": 9}')
    known, _ = gather(
        folder,
        "--worker_count",
        "3",
        AZMLINFSRV_QUEUE_TIMEOUT="2.5",
        AZMLINFSRV_ERROR_DETAILS="yes",
        WORKER_PRELOAD="TRUE",
    )
    assert dict(each[:2] for each in known.given) == {
        "WORKER_COUNT": "3",
        "AZMLINFSRV_QUEUE_TIMEOUT": "2.5",
        "AZMLINFSRV_ERROR_DETAILS": "true",
        "WORKER_PRELOAD": "true",
    }


def test_a_configuration_file_in_the_image_needs_no_variables(folder: Path, tmp_path: Path) -> None:
    (folder / "config.json").write_text('{"AZMLINFSRV_MAX_QUEUE": 9}')
    assert gather(folder)[0].given == ()
    assert gather(folder)[0].config_file is None  # the server finds it by its name
    (folder / "other.json").write_text('{"AZMLINFSRV_MAX_QUEUE": 9}')
    assert gather(folder, "--config_file", "other.json")[0].config_file == "other.json"
    (tmp_path / "outside.json").write_text('{"AZMLINFSRV_MAX_QUEUE": 9}')
    known, _ = gather(folder, "--config_file", "../outside.json")
    assert [each[:2] for each in known.given] == [("AZMLINFSRV_MAX_QUEUE", "9")]
    assert known.config_file is None


def test_what_a_configuration_file_in_the_image_says_is_known(folder: Path) -> None:
    (folder / "config.json").write_text('{"AZMLINFSRV_PROTOCOLS": "score,v2", "AZMLINFSRV_MODEL_NAME": "iris"}')
    known, _ = gather(folder)
    assert known.given == ()
    assert (known.serves_v2, known.names_model, known.model_name) == (True, True, "iris")
    assert (known.ready_path, known.live_path) == ("/v2/health/ready", "/v2/health/live")


def test_no_secret_is_written(folder: Path) -> None:
    secret = "InstrumentationKey=11111111-2222-3333-4444-555555555555"
    known, _ = gather(
        folder,
        "--appinsights_connection_string",
        secret,
        OTEL_EXPORTER_OTLP_ENDPOINT="http://collector:4318",
        OTEL_EXPORTER_OTLP_HEADERS="api-key=hidden",
    )
    assert "11111111" not in str(known)
    assert "hidden" not in str(known)
    assert known.secrets == ("APPLICATIONINSIGHTS_CONNECTION_STRING", "OTEL_EXPORTER_OTLP_HEADERS")
    assert ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318") in [each[:2] for each in known.given]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AZMLINFSRV_WORKER_ENV", "TOKEN=hidden"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://ada:hidden@collector:4318"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://collector/v1?key=hidden"),
        ("AML_APP_INSIGHTS_ENDPOINT", "https://ada:hidden@proxy"),
    ],
)
def test_what_may_be_a_secret_is_not_written(folder: Path, name: str, value: str) -> None:
    """Variables for workers, which no message shows, and URLs with a password or a key."""
    known, _ = gather(folder, **{name: value})
    assert "hidden" not in str(known)
    assert known.secrets == (name,)


def test_devices_of_workers_are_no_secret(folder: Path) -> None:
    value = "CUDA_VISIBLE_DEVICES={worker%2};SEED={worker}"
    known, _ = gather(folder, AZMLINFSRV_WORKER_ENV=value)
    assert ([each[:2] for each in known.given], known.secrets) == ([("AZMLINFSRV_WORKER_ENV", value)], ())
    known, _ = gather(folder, AZMLINFSRV_WORKER_ENV=f"{value};TOKEN=hidden")
    assert (known.given, known.secrets) == ((), ("AZMLINFSRV_WORKER_ENV",))


def test_a_secret_in_the_configuration_file_of_the_image_is_told(folder: Path, tmp_path: Path) -> None:
    text = '{"AZMLINFSRV_WORKER_ENV": "TOKEN=hidden"}'
    (folder / "config.json").write_text(text)
    known, notes = gather(folder)
    assert (known.given, known.secrets) == ((), ())
    assert [note.split(" has ", 1)[1] for note in notes] == [
        "AZMLINFSRV_WORKER_ENV, which may be a secret, and goes where the script goes: set the variable there instead."
    ]
    (folder / "config.json").unlink()
    (tmp_path / "outside.json").write_text(text)
    known, notes = gather(folder, "--config_file", "../outside.json")
    assert (known.given, known.secrets, notes) == ((), ("AZMLINFSRV_WORKER_ENV",), ())


def test_files_in_the_folder_that_a_setting_names_go_into_the_image(folder: Path, tmp_path: Path) -> None:
    (folder / "samples").mkdir()
    for path in ("samples", str(folder / "samples")):
        known, notes = gather(folder, "--warmup_samples", path)
        assert ([each[:2] for each in known.given], notes) == ([("AZMLINFSRV_WARMUP_SAMPLES", "samples")], ())
    known, notes = gather(folder, "--warmup_samples", str(tmp_path))
    assert known.given == ()
    assert notes == ("--warmup_samples is left out: it names a path that is not in the folder of the script.",)


def test_a_number_of_workers_that_this_machine_has_chosen_is_told(folder: Path) -> None:
    known, notes = gather(folder, WORKER_COUNT="auto")
    assert notes == (
        f"WORKER_COUNT is auto, which means {known.workers} on this machine, so the files have {known.workers}: give "
        "the number that is wanted elsewhere.",
    )
    assert gather(folder, WORKER_COUNT="2")[1] == ()


def test_settings_for_this_machine_are_left_out_and_named(folder: Path) -> None:
    known, notes = gather(
        folder,
        "--reload",
        AZMLINFSRV_TELEMETRY_STORAGE="/var/t",
        SERVICE_NAME="a\nb",
        HOSTNAME="box",
        OTEL_EXPORTER_OTLP_CERTIFICATE="/c.pem",
    )
    assert known.given == ()
    assert sorted(notes) == [
        "--reload is left out: it is for development.",
        "AZMLINFSRV_TELEMETRY_STORAGE is left out: it names a folder to write to, which has to be there first.",
        "OTEL_EXPORTER_OTLP_CERTIFICATE is left out: it names a file of this machine.",
        "SERVICE_NAME is left out: its value has a control character.",
    ]


def test_every_setting_without_a_variable_is_an_argument_of_the_command() -> None:
    """A new setting of this kind has to be added to the files by hand."""
    assert {setting.name for setting in SETTINGS if not setting.environment} == {"port", "health_port", "rest"}


def test_ports(folder: Path) -> None:
    assert gather(folder, "--port", "0")[0].port == 5001
    assert gather(folder, "--health_port", "7")[0].health_port is None
    known, _ = gather(folder, "--port", "80", "--health_port", "7", SEPERATE_HEALTH_ENDPOINT="true")
    assert known.arguments[-4:] == ("--port", "80", "--health_port", "7")
    assert known.probe_port == 7
    # A free port makes no sense in a container, so the server's default is written.
    assert gather(folder, "--health_port", "0", SEPERATE_HEALTH_ENDPOINT="true")[0].health_port == 5000


def test_a_model_in_the_folder_is_in_the_image_and_another_is_mounted(folder: Path, tmp_path: Path) -> None:
    known, _ = gather(folder, "--model_dir", "models/1")
    assert known.model == Model("models/1", in_app=True)
    assert known.model_in_image == "/app/models/1"
    known, _ = gather(folder, "--model_dir", "../models")
    assert known.model == Model((tmp_path.resolve() / "models").as_posix(), in_app=False)
    assert known.model_in_image == "/model"
    known, _ = gather(folder, "--model_dir", ".")
    assert (known.model_in_image, known.model_here) == ("/app", folder.as_posix())


def test_files_elsewhere(folder: Path) -> None:
    known, _ = gather(folder, "--out", "a/b")
    assert (known.app_from_out, known.out_from_app) == ("../..", "a/b")


def test_a_path_with_a_line_break_is_refused(folder: Path, tmp_path: Path) -> None:
    """In a comment, what follows it would be an instruction."""
    (folder / "a\nUSER root.py").write_text("")
    assert "has a control character" in refusal(folder, "--entry_script", "a\nUSER root.py")
    assert "has a control character" in refusal(folder, "--model_dir", str(tmp_path / "a\rb"))
    assert "has a control character" in refusal(folder, "--out", "a\nb")


def test_refusals(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.py").write_text("")
    assert "there is no file" in refusal(folder, "--entry_script", "scor.py")
    assert f"is not in {folder}" in refusal(folder, "--entry_script", "../outside.py")
    assert "--requirements nothing.txt: there is no such file in" in refusal(folder, "--requirements", "nothing.txt")
    assert "--wheel ../x.whl: there is no such file in" in refusal(folder, "--wheel", "../x.whl")


@pytest.mark.parametrize(
    ("folder_name", "name"),
    [
        ("score", "score"),
        ("My Model", "my-model"),
        ("2nd_try!", "nd-try"),
        ("日本", "score"),
        ("a" * 80, "a" * 52),
        ("on", "score"),
    ],
)
def test_names_from_folders(folder_name: str, name: str) -> None:
    assert name_from(folder_name) == name


@pytest.mark.parametrize("name", ["A", "1a", "a_b", "a-", "", "a" * 53, "null", "y"])
def test_names_that_kubernetes_would_refuse(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be a name"):
        parse(["docker", "--entry_script", "s.py", "--name", name])


def test_images_without_their_tags(folder: Path) -> None:
    known, _ = gather(folder)
    names = ["a", "a:1", "host:5000/a", "host:5000/b/a:1@sha256:00"]
    assert [known._replace(image=name).image_without_tag for name in names] == [
        "a",
        "a",
        "host:5000/a",
        "host:5000/b/a",
    ]


@pytest.mark.parametrize(
    ("script", "options", "calls"),
    [
        ("def run(data): ...", ("--worker_count", "2"), 2),
        ("async def run(data): ...", ("--worker_count", "2"), 200),
        ("async def run(data): ...", ("--max_concurrency", "7"), 7),
        ("from other import run", ("--max_concurrency", "7"), 7),
        ("def run(data): ...", ("--max_batch_size", "8", "--worker_count", "2"), 16),
        ("def run(data:", (), 1),
    ],
)
def test_requests_at_once(folder: Path, script: str, options: tuple[str, ...], calls: int) -> None:
    """Azure ML lets so many requests through."""
    (folder / "score.py").write_text(script)
    assert azure.limits(gather(folder, *options)[0]).concurrency == calls


def test_limits_of_azure(folder: Path) -> None:
    assert azure.limits(gather(folder)[0])[:2] == (60000, 65000)
    assert azure.limits(gather(folder, SCORING_TIMEOUT_MS="9000")[0])[:2] == (9000, 14000)
    for given, shown in (("200000", "200000"), ("0", r"0 \(no limit\)")):
        limits = azure.limits(gather(folder, SCORING_TIMEOUT_MS=given)[0])
        assert limits[:2] == (175000, 180000)
        assert len(limits.notes) == 1
        assert shown.replace("\\", "") in limits.notes[0]
    assert azure.limits(gather(folder, "--worker_count", "3")[0]).concurrency == 3
    threads = gather(folder, "--worker_count", "3", "--worker_threads", "4")[0]
    assert azure.limits(threads).concurrency == 12
