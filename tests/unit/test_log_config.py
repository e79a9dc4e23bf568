"""Logging: line format, user's logging.json, level setting, worker pids (contract section 13)."""

from __future__ import annotations

import io
import json
import logging
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from azureml_inference_server_http import log_config
from azureml_inference_server_http.launch.display import Display

LINE = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} I \[\d+\] azmlinfsrv - "


@pytest.fixture
def settings(tmp_path):
    return SimpleNamespace(app_root=str(tmp_path), entry_script=None, log_level="INFO", display=Display())


@pytest.fixture(autouse=True)
def logging_state():
    """Restore the loggers at the end, because dictConfig changes them for the whole process."""
    kept = [
        (logger, logger.handlers[:], logger.filters[:], logger.level, logger.propagate, logger.disabled)
        for logger in map(logging.getLogger, (None, "azmlinfsrv", "gunicorn.access", "gunicorn.error"))
    ]
    yield
    for logger, handlers, filters, level, propagate, disabled in kept:
        logger.handlers[:], logger.filters[:] = handlers, filters
        logger.level, logger.propagate, logger.disabled = level, propagate, disabled
        logger.manager._clear_cache()


def write(folder, config):
    path = Path(folder) / "logging.json"
    path.write_text(config if isinstance(config, str) else json.dumps(config), encoding="utf-8")
    return str(path)


def test_default_config_writes_contract_lines_to_stdout(settings, capsys):
    path = log_config.configure(settings)
    assert path == log_config.DEFAULT_CONFIG
    out, err = capsys.readouterr()
    assert re.fullmatch(LINE + re.escape(f"Loaded logging config from {path}\n"), out)
    assert err == ""


def test_time_is_utc(monkeypatch):
    record = logging.LogRecord("n", logging.INFO, "f", 1, "m", (), None)
    record.created, record.msecs = 86399.5, 500.0
    assert log_config.AMLLogFormatter("%(asctime)s").format(record) == "1970-01-01 23:59:59,500"


def test_root_logger_prints_warnings_plainly_to_stderr(settings, capsys):
    log_config.configure(settings)
    logging.getLogger("entry_module").info("not shown")
    logging.getLogger("entry_module").warning("shown")
    logging.error("also %s", "shown")
    assert capsys.readouterr().err == "WARNING:entry_module:shown\nERROR:root:also shown\n"


def test_children_of_azmlinfsrv_do_not_reach_the_root(settings, capsys):
    log_config.configure(settings)
    capsys.readouterr()
    logging.getLogger("azmlinfsrv.print").warning("x")
    out, err = capsys.readouterr()
    assert out.endswith(" azmlinfsrv.print - x\n")
    assert err == ""


@pytest.mark.parametrize(("level", "shown"), [("DEBUG", ["d", "i", "w"]), ("INFO", ["i", "w"]), ("WARNING", ["w"])])
def test_log_level_takes_effect(settings, capsys, level, shown):
    settings.log_level = level
    log_config.configure(settings)
    capsys.readouterr()
    logger = logging.getLogger("azmlinfsrv.x")
    logger.debug("d")
    logger.info("i")
    logger.warning("w")
    assert [line[-1] for line in capsys.readouterr().out.splitlines()] == shown


def test_the_boot_of_a_worker_goes_to_stderr_in_the_servers_format(settings, capsys, tmp_path):
    write(tmp_path, {"version": 1})
    log_config.configure(settings)
    capsys.readouterr()
    logging.getLogger("gunicorn.error").info("Booting worker with pid: 5")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith(f" I [{os.getpid()}] gunicorn.error - Booting worker with pid: 5\n")


ACCESS = {"version": 1, "handlers": {"h": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"}}}


@pytest.mark.parametrize(
    ("logger", "wanted"),
    [
        ({"handlers": ["h"]}, True),
        ({"handlers": ["h"], "level": "ERROR"}, False),
        ({}, False),
        ({"propagate": True}, True),
        (None, False),
    ],
)
def test_access_lines_are_wanted_where_a_user_file_names_their_logger(settings, tmp_path, logger, wanted):
    write(tmp_path, ACCESS if logger is None else {**ACCESS, "loggers": {"gunicorn.access": logger}})
    log_config.configure(settings)
    assert log_config.wants_access_lines() is wanted


def test_access_lines_leave_out_plain_health_checks_and_have_the_worker_as_before(settings, capsys, tmp_path):
    write(tmp_path, {**ACCESS, "loggers": {"gunicorn.access": {"handlers": ["h"]}}})
    log_config.configure(settings)
    capsys.readouterr()
    logger = logging.getLogger("gunicorn.access")
    logger.info('"GET / HTTP/1.1" 200')
    logger.info('"GET /?x HTTP/1.1" 200')
    assert capsys.readouterr().out == '"GET /?x HTTP/1.1" 200\n'


def test_record_with_worker_pid_shows_that_pid_in_any_format(settings, capsys, tmp_path):
    write(
        tmp_path,
        {
            "version": 1,
            "formatters": {"f": {"format": "%(process)d|%(message)s"}},
            "handlers": {"h": {"class": "logging.StreamHandler", "formatter": "f", "stream": "ext://sys.stdout"}},
            "loggers": {"azmlinfsrv": {"level": "INFO", "handlers": ["h"]}},
        },
    )
    log_config.configure(settings)
    log_config.configure(settings)  # a second time must not stack filters
    capsys.readouterr()
    logging.getLogger("azmlinfsrv").info("GET / 200", extra={"worker_pid": 77})
    assert capsys.readouterr().out == "77|GET / 200\n"
    assert len(logging.getLogger("azmlinfsrv").filters) == 1


def test_user_file_in_app_root_wins_over_the_scripts_folder(settings, tmp_path):
    (tmp_path / "code").mkdir()
    settings.entry_script = "code/score.py"
    beside = write(tmp_path / "code", {"version": 1})
    assert log_config.configure(settings) == beside
    in_root = write(tmp_path, {"version": 1})
    path = log_config.configure(settings)
    assert path == in_root != log_config.DEFAULT_CONFIG


def test_user_file_decides_the_level_alone(settings, capsys, tmp_path):
    handler = {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"}
    write(
        tmp_path,
        {"version": 1, "handlers": {"h": handler}, "loggers": {"azmlinfsrv": {"level": "DEBUG", "handlers": ["h"]}}},
    )
    settings.log_level = "ERROR"
    log_config.configure(settings)
    logging.getLogger("azmlinfsrv").debug("d")
    assert "\nd\n" in capsys.readouterr().out


def test_user_file_may_name_the_published_classes(settings, tmp_path, capsys):
    write(
        tmp_path,
        {
            "version": 1,
            "formatters": {
                "f": {"class": "azureml_inference_server_http.log_config.AMLLogFormatter", "format": "%(message)s"}
            },
            "filters": {"r": {"()": "azureml_inference_server_http.log_config.RootAccessFilter"}},
            "handlers": {
                "h": {
                    "class": "logging.StreamHandler",
                    "formatter": "f",
                    "filters": ["r"],
                    "stream": "ext://sys.stdout",
                }
            },
            "loggers": {"azmlinfsrv": {"handlers": ["h"]}},
        },
    )
    log_config.configure(settings)
    capsys.readouterr()
    logging.getLogger("azmlinfsrv").info('"%s / HTTP/1.1" 200', "GET")
    logging.getLogger("azmlinfsrv").info("GET /score HTTP/1.1")
    assert capsys.readouterr().out == "GET /score HTTP/1.1\n"


def test_user_file_that_only_configures_root_does_not_silence_the_server(settings, capsys, tmp_path):
    logging.getLogger("azmlinfsrv.user_script")
    write(tmp_path, {"version": 1, "root": {"level": "INFO"}})
    log_config.configure(settings)
    assert not logging.getLogger("azmlinfsrv.user_script").disabled
    assert "Loaded logging config from" in capsys.readouterr().out
    logging.getLogger("entry_module").info("of the script")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"version": 1', "Expecting ',' delimiter"),
        ("[]", "JSON list, not an object"),
        ('{"version": 2}', "Unsupported version"),
        ('{"version": 1, "handlers": {"h": {"class": "no.such.Handler"}}}', r"Unable to configure handler 'h'.*no"),
    ],
)
def test_broken_file_names_file_problem_and_remedy(settings, tmp_path, text, problem):
    path = write(tmp_path, text)
    with pytest.raises(log_config.LogConfigError, match=problem) as caught:
        log_config.configure(settings)
    assert path in str(caught.value)
    assert "remove the file" in str(caught.value)


def test_folder_named_logging_json_is_refused(settings, tmp_path):
    (tmp_path / "logging.json").mkdir()
    with pytest.raises(log_config.LogConfigError, match="Is a directory"):
        log_config.configure(settings)


def test_stream_of_default_handler_is_not_a_buffer_of_ours(settings):
    log_config.configure(settings)
    handlers = logging.getLogger("azmlinfsrv").handlers
    assert [type(handler) for handler in handlers] == [logging.StreamHandler]
    assert isinstance(handlers[0].stream, io.TextIOBase)


class LikeAnyOther(logging.Filter):
    def __eq__(self, other):
        return True

    __hash__ = logging.Filter.__hash__


@pytest.mark.parametrize(
    "change",
    [
        lambda logger: logger.setLevel("DEBUG"),
        lambda logger: logger.addFilter(lambda record: True),
        lambda logger: logger.addHandler(logging.NullHandler()),
        lambda logger: logger.removeHandler(logger.handlers[0]),
        lambda logger: logger.filters.__setitem__(0, LikeAnyOther()),
        lambda logger: logger.handlers[0].setLevel("ERROR"),
        lambda logger: logger.handlers[0].addFilter(lambda record: True),
        lambda logger: logger.handlers[0].setFormatter(logging.Formatter()),
        lambda logger: setattr(logger.handlers[0].formatter, "converter", None),
        lambda logger: logger.handlers[0].setStream(io.StringIO()),
        lambda logger: setattr(logger, "propagate", True),
        lambda logger: setattr(logger, "disabled", True),
        lambda logger: setattr(logger, "handle", print),
    ],
)
def test_changes_of_the_logger_are_noticed(settings, change):
    log_config.configure(settings)
    logger = logging.getLogger("azmlinfsrv")
    before = log_config.LoggerState()
    # Usual actions of scripts do not count as changes.
    logging.getLogger("azmlinfsrv.mine").warning("text")
    logging.getLogger().addHandler(logging.NullHandler())
    assert not before.has_changed()
    attributes = dict(vars(logger))
    change(logger)
    changed = before.has_changed()
    vars(logger).clear()
    vars(logger).update(attributes)
    assert changed


def test_changes_beyond_the_logger_are_noticed_where_they_count(settings):
    log_config.configure(settings)
    before = log_config.LoggerState()
    logging.disable(logging.INFO)
    disabled = before.has_changed()
    logging.disable(logging.NOTSET)
    factory = logging.getLogRecordFactory()
    logging.setLogRecordFactory(lambda *args, **keywords: factory(*args, **keywords))
    factory_changed = before.has_changed()
    logging.setLogRecordFactory(factory)
    assert disabled
    assert factory_changed
    logging.getLogger("azmlinfsrv").propagate = True
    before = log_config.LoggerState()
    logging.getLogger().addHandler(logging.NullHandler())
    assert before.has_changed()
