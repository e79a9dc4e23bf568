"""The checks of ``azmlinfsrv validate``, in order: settings, script, start, samples, environment.

Owns what is done after what, and what makes the rest impossible. Does not own the server that is checked
(``session.py``), the rules (``detection.py``) or the output (``report.py``). Imports little at the top, because the
server that a session forks has what is imported before. Runs in the command, which has one thread.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..launch import cli, settings
from ..launch.config_file import ConfigFileError
from . import findings, options
from .comparing import counted
from .findings import BY_NAME, Finding, Place
from .report import FAILED, PASSED, SKIPPED, Report, Step

if TYPE_CHECKING:
    from ..launch.settings import RawSettings, Settings
    from . import requirements
    from .samples import Sample
    from .session import Session
    from .start import Started

# How many files of the model's folder a message lists.
MOST_LISTED = 10
SCHEMA_SAMPLE = "from @input_schema"


class Validation:
    """One validation: ``check`` does it, ``report`` tells what came of it."""

    def __init__(self, flags: dict[str, Any], files: Sequence[str]) -> None:
        """``flags``: the options that were typed; ``files``: the samples."""
        self._flags = flags
        self._files = files
        self._limit: float = flags.get("timeout", options.TIMEOUT)
        self._ignored = {code for codes in flags.get("ignore", ()) for code in codes}
        self._steps: list[Step] = []
        self._findings: list[Finding] = []
        self._session: Session | None = None
        self._script = flags.get("entry_script") or "main.py"
        self._script_seconds = 0.0
        self._peak = 0

    def check(self) -> None:
        """Take the steps, until one of them makes the next ones impossible. Raises UsageError."""
        fault = cli.fault_of_core()
        if fault:
            raise options.UsageError(fault)
        loaded = self._check_settings()
        if loaded is None:
            return
        raw, given = loaded
        if not self._check_script(given):
            return
        started = self._start(raw, given)
        self._steps += started.steps
        self._found(*started.findings)
        if any(each.step == findings.SETTINGS for each in started.findings):
            # A logging.json that only the server could read.
            self._steps[0] = self._steps[0]._replace(outcome=FAILED)
        self._script_seconds += started.seconds
        if started.is_ready:
            samples = self._samples(started)
            if not samples:
                self._wait_until_served()
            for sample in samples:
                self._check_sample(sample, started.run, raw, given)
            self._check_requirements(started)
        self._check_memory()
        if self._session is not None:
            self._end_session()

    def abandon(self) -> None:
        """End the server at once."""
        if self._session is not None:
            self._end_session(at_once=True)

    def report(self, seconds: float) -> Report:
        """What was found."""
        script = os.path.abspath(self._script)
        return Report(script, os.getcwd(), self._steps, self._findings, seconds, self._script_seconds)

    @property
    def peak(self) -> int:
        """Bytes of memory that a worker has needed at most."""
        return self._peak

    # ---- What was found

    def _found(self, *found: Finding) -> bool:
        """Keep the findings that are not ignored. Returns whether one of them makes the script invalid."""
        wanted = [each for each in found if each.kind.code not in self._ignored]
        self._findings += wanted
        return any(map(findings.counts, wanted))

    def _step(self, name: str, failed: bool, detail: str = "") -> None:
        self._steps.append(Step(name, FAILED if failed else PASSED, detail))

    # ---- Before the start

    def _check_settings(self) -> tuple[RawSettings, Settings] | None:
        step = findings.SETTINGS
        raw = settings.RawSettings(self._flags, os.environ, os.getcwd())
        try:
            given = settings.load(raw)
        except settings.SettingsError as error:
            self._step(step, self._found(*(Finding(BY_NAME["setting-refused"], line, step) for line in error.lines)))
            return None
        except ConfigFileError as error:
            self._step(step, self._found(Finding(BY_NAME["settings-file-unusable"], str(error), step)))
            return None
        failed = self._found(*(Finding(BY_NAME["setting-without-effect"], text, step) for text in given.notices))
        if given.model_dir and not os.path.isdir(given.model_dir):
            message = f"the folder {given.model_dir} does not exist ({given.origins['model_dir'].name})"
            failed |= self._found(Finding(BY_NAME["model-dir-missing"], message, step))
        model = f"model folder {given.model_dir}" if given.model_dir else "no model folder"
        self._step(step, failed, f"{given.config_file_read or 'no configuration file'}, {model}")
        return raw, _for_validation(given)

    def _check_script(self, given: Settings) -> bool:
        if not given.entry_script:
            if not self._flags.get("config_file"):
                raise options.UsageError("name the script with --entry_script")
            return True  # the server imports main.py, wherever Python finds it
        path = self._script = os.path.abspath(os.path.join(given.app_root, given.entry_script))
        fault = _fault_of_script(path)
        if fault:
            message = f"{path} {fault}{_similar(path)}"
            self._found(Finding(BY_NAME["script-not-found"], message, findings.SCRIPT, Place(path, None)))
        self._step(findings.SCRIPT, fault is not None, path)
        return fault is None

    # ---- The server

    def _start(self, raw: RawSettings, given: Settings) -> Started:
        """Start a server, and see how far the script comes."""
        from .session import Session, held_signals

        with held_signals():
            session = self._session = Session(raw, given, self._limit)
        # What is imported from here on cannot reach the script; meanwhile the server starts.
        from . import calls, client, detection, start  # noqa: F401

        events = list(session.start())
        stack = detection.last_stack(session.log(), session.own_folders)
        script = self._script if given.entry_script else None
        started = start.read(events, self._limit, given.model_dir, _listing(given.model_dir), stack, script)
        self._peak = max(self._peak, started.peak)
        if not started.is_ready:
            self._end_session(at_once=True)
        return started

    def _end_session(self, at_once: bool = False) -> None:
        session, self._session = self._session, None
        if session is not None:
            if self._flags.get("verbose"):
                sys.stderr.write(session.log())
            session.close(at_once)

    def _wait_until_served(self) -> None:
        """Ask for the swagger document, which waits for the worker: one that is not ready yet would be killed at the
        end, and the script's exit code would not run."""
        from . import detection
        from .samples import Sample
        from .session import Ended

        session = self._session
        assert session is not None
        outcome = session.send(Sample("", "GET", "/swagger.json", {}, b""))
        if isinstance(outcome, Ended):
            stack = detection.last_stack(session.log(), session.own_folders)
            self._found(detection.of_end(findings.INIT, outcome.how, None, stack))
            self._end_session(at_once=True)

    # ---- Samples

    def _samples(self, started: Started) -> list[Sample]:
        """The samples that can be read; the others become findings."""
        from . import samples

        if not self._files:
            if started.sample:
                return [samples.from_json(SCHEMA_SAMPLE, started.sample)]
            note = BY_NAME["not-called"]
            self._found(Finding(note, "no sample was given, so run() was not called", findings.SAMPLE, started.run))
            self._steps.append(Step(findings.SAMPLE, SKIPPED, "none: give one with --sample"))
        readable = []
        for file in self._files:
            try:
                readable.append(samples.read(file))
            except samples.SampleError as error:
                name, place = os.path.basename(file), Place(error.file, None)
                found = Finding(BY_NAME["sample-unusable"], str(error), findings.SAMPLE, place, name)
                failed = self._found(found)
                self._steps.append(Step(findings.SAMPLE, FAILED if failed else PASSED, "not sent", None, name))
        return readable

    def _check_sample(self, sample: Sample, run: Place | None, raw: RawSettings, given: Settings) -> None:
        """Send a sample. If the server is lost by that, another one is started for the next sample."""
        if self._session is None and not self._start(raw, given).is_ready:
            self._steps.append(Step(findings.SAMPLE, SKIPPED, "the server did not start again", None, sample.name))
            return
        from . import calls, detection

        session = self._session
        assert session is not None
        wanted = calls.Wanted(
            options.tolerance(self._flags),
            options.tolerance_of_repetition(self._flags),
            tuple(self._flags.get("ignore_path", ())),
            twice=not self._flags.get("once"),
            budget_ms=self._flags.get("budget_ms"),
            limit=self._limit,
        )
        checked = calls.check(
            sample, session.send, wanted, run, lambda: detection.last_stack(session.log(), session.own_folders)
        )
        failed = self._found(*checked.findings)
        self._script_seconds += checked.seconds
        self._peak = max(self._peak, checked.peak)
        outcome = FAILED if failed else PASSED
        self._steps.append(Step(findings.SAMPLE, outcome, checked.detail, checked.seconds, sample.name))
        if checked.is_server_lost:
            self._end_session(at_once=True)

    # ---- Afterwards

    def _check_requirements(self, started: Started) -> None:
        file = self._flags.get("requirements")
        if not file:
            return
        from . import requirements

        step = findings.ENVIRONMENT
        try:
            named = requirements.named_in(file)
        except requirements.RequirementsError as error:
            raise options.UsageError(f"--requirements: {error}") from error
        found = requirements.unnamed(started.sources, named)
        failed = self._found(*(_of_import(each, os.path.basename(file)) for each in found))
        self._step(step, failed, f"{file} names {counted(len(named), 'package')}")

    def _check_memory(self) -> None:
        from . import detection

        budget = self._flags.get("budget_mb")
        if budget is not None and self._peak:
            failed = self._found(*detection.of_memory(self._peak, budget))
            self._step(findings.MEMORY, failed, f"{self._peak / 1e6:.0f} MB at most")


def _for_validation(given: Settings) -> Settings:
    """The settings with one worker that stays, no second port, and nothing that leaves this machine."""
    return given._replace(
        worker_count=1,
        worker_preload=False,
        max_requests=0,
        record=None,
        max_worker_rss=0,
        separate_health=False,
        app_insights_enabled=False,
        # Also switches off what OTEL_EXPORTER_OTLP_* ask for.
        otel_sdk_disabled=True,
        reload=False,
        reload_dir=None,
        debug_port=None,
        debug_wait=False,
    )


def _fault_of_script(path: str) -> str | None:
    if os.path.isdir(path):
        return "is a folder"
    if not os.path.exists(path):
        return "does not exist"
    return None if path.endswith(".py") else "is no Python file: its name must end in .py"


def _similar(path: str) -> str:
    """What the name was probably meant to be."""
    import difflib

    folder, name = (path, "") if os.path.isdir(path) else os.path.split(path)
    try:
        names = [each for each in os.listdir(folder) if each.endswith(".py")]
    except OSError:
        return f"; there is no folder {folder}"
    close = difflib.get_close_matches(name, names, 1, 0.6)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; {folder} has {', '.join(sorted(names)[:MOST_LISTED])}" if names else ""


def _listing(folder: str | None) -> str:
    """The first files below the model's folder, for a message about one that is missing."""
    if not folder:
        return ""
    files = []
    for place, folders, names in os.walk(folder):
        folders.sort()
        files += [os.path.relpath(os.path.join(place, name), folder) for name in sorted(names)]
        if len(files) > MOST_LISTED:
            break
    more = ", ..." if len(files) > MOST_LISTED else ""
    return f"; the model folder has {', '.join(files[:MOST_LISTED]) or 'no files'}{more}"


def _of_import(each: requirements.Unnamed, file: str) -> Finding:
    module, place = each.found.module, Place(each.found.file, each.found.line)
    if each.package is None:
        message = f"{module} is imported; it is not installed here, and {file} does not name it"
    elif each.needed_by is None:
        message = f"{module} is imported; {file} does not name its package {each.package}"
    else:
        message = f"{module} is imported; {file} does not name its package {each.package}, which {each.needed_by} needs"
    return Finding(BY_NAME["package-not-named"], message, findings.ENVIRONMENT, place)
