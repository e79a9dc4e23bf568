"""The configuration file: where it is searched, and what is wrong with it (contract section 3)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from resolving import Load

from azureml_inference_server_http.launch.config_file import ConfigFileError

# ---- The configuration file


def write(path: Path, timeout: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"SCORING_TIMEOUT_MS": timeout}))
    return path


def test_search_order(load: Load, tmp_path: Path) -> None:
    named = write(tmp_path / "named.json", 1)
    variable = write(tmp_path / "variable.json", 2)
    root = write(tmp_path / "root" / "config.json", 3)
    beside = write(tmp_path / "scripts" / "config.json", 4)
    write(tmp_path / "config.json", 5)
    flags = {"config_file": "named.json", "entry_script": "scripts/score.py"}
    environment = {"AZUREML_CONFIG_FILE": "variable.json", "AML_APP_ROOT": "root"}

    for timeout, file in enumerate((named, variable, root, beside), start=1):
        resolved = load(flags=flags, environment=environment)
        assert (resolved.scoring_timeout_ms, resolved.config_file_read) == (timeout, str(file))
        file.write_text("")
        if file is named:
            flags.pop("config_file")
    resolved = load(flags=flags, environment=environment)
    assert (resolved.scoring_timeout_ms, resolved.config_file_read) == (3600000, None)


def test_beside_a_script_named_by_the_variable(load: Load, tmp_path: Path) -> None:
    write(tmp_path / "root" / "scripts" / "config.json", 6)
    environment = {"AML_APP_ROOT": "root", "azureml_entry_script": "scripts/score.py"}
    assert load(environment=environment).scoring_timeout_ms == 6


def test_missing_and_empty_named_files_are_skipped_with_a_notice(load: Load, tmp_path: Path) -> None:
    root = write(tmp_path / "config.json", 7)
    resolved = load(flags={"config_file": "gone.json"})
    assert resolved.config_file_read == str(root)
    assert resolved.notices == (
        f"The configuration file {tmp_path}/gone.json does not exist: nothing is read from it.",
    )
    (tmp_path / "empty.json").touch()
    assert load(environment={"AZUREML_CONFIG_FILE": "empty.json"}).notices == (
        f"The configuration file {tmp_path}/empty.json is empty: nothing is read from it.",
    )
    assert load(environment={"AZUREML_CONFIG_FILE": ""}).notices == ()


def test_keys_without_effect_are_named_once(load: Load, tmp_path: Path) -> None:
    resolved = load(file={"foo": 1, "WORKER_COUNT": 3, "scoring_timeout_ms": 7, "SERVICE_NAME": "ok"})
    assert (resolved.worker_count, resolved.scoring_timeout_ms, resolved.service_name) == (1, 3600000, "ok")
    assert resolved.notices == (
        f"Keys in {tmp_path}/config.json that have no effect: 'foo', 'WORKER_COUNT' (an environment variable, not read "
        "from a file), 'scoring_timeout_ms' (write it SCORING_TIMEOUT_MS)",
    )


def test_a_file_full_of_foreign_keys_does_not_fill_the_log(load: Load) -> None:
    (notice,) = load(file={f"key{number}": 1 for number in range(1000)}).notices
    assert notice.endswith("'key19', ...")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"{", "is not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))"),
        (b" ", "is not JSON (Expecting value: line 1 column 2 (char 1))"),
        (b'{"a": "\xff"}', "is not UTF-8 text (byte 8)"),
        (b"[1]", "does not hold an object"),
        (b'"x"', "does not hold an object"),
        (b"[" * 200000, "is not JSON that can be read"),
    ],
)
def test_unusable_files_are_explained(load: Load, tmp_path: Path, content: bytes, fault: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ConfigFileError) as caught:
        load()
    text = str(caught.value)
    assert text.startswith(f"{tmp_path}/config.json {fault}")
    assert "\n" not in text
    assert text.endswith("Correct it, remove it, or name another file with --config_file.")


def test_a_byte_order_mark_counts_for_nothing(load: Load, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b'\xef\xbb\xbf{\r\n"SERVICE_NAME": "\xc3\xa4"\r\n}')
    assert load().service_name == "\u00e4"


def test_a_folder_is_not_a_file(load: Load, tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    with pytest.raises(ConfigFileError, match=r"cannot be read \(Is a directory\)"):
        load()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("AZMLINFSRV_MAX_QEUE", " Did you mean AZMLINFSRV_MAX_QUEUE?"),
        ("azmlinfsrv_max_queue", " Did you mean AZMLINFSRV_MAX_QUEUE?"),
        ("AZMLINFSRV_WORKER_COUNT", " Did you mean WORKER_COUNT?"),
        ("AZMLINFSRV_MODEL_DIR", " Did you mean AZUREML_MODEL_DIR?"),
        ("AZMLINFSRV_PORT", " Did you mean --port?"),
        ("AZMLINFSRV_1234567890", ""),
    ],
)
def test_variables_of_ours_that_nothing_reads_are_named(load: Load, name: str, hint: str) -> None:
    assert load(environment={name: "1", "AZMLINFSRV_MAX_QUEUE": "5", "OTHER": "1"}).notices == (
        f"The environment variable {name} has no effect: there is no such setting.{hint}",
    )
