"""What the files say: gathered from the settings in force, the folder of the script, and the measurement.

Owns where the script, its model and its packages are, seen from the files. ``variables.py`` has the settings that
become variables, ``sizing.py`` the sizes. Reads names of files, and the requirements; runs no code of the user.
"""

from __future__ import annotations

import os
import posixpath
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import azureml_inference_server_http as package

from ..launch import settings_table as table
from ..launch.capacity import requests_at_once
from ..launch.settings import DEFAULT, RawSettings, Settings
from . import options
from . import requirements as packages
from .options import UsageError
from .paths import inside
from .requirements import Requirements
from .sizing import Measured, Sizes, sizes
from .variables import Variable, carried

# The folders of an image.
APP, MODEL = "/app", "/model"
# Seconds between the moment in which Kubernetes ends a pod, and SIGTERM: proxies learn of the end later than the pod.
PRE_STOP = 5
# Seconds beyond --graceful_timeout in which the command ends.
STOP_MARGIN = 10
# The port that KServe sends requests to.
KSERVE_PORT = 8080
# Seconds that systemd waits before it starts the command again.
RESTART_PAUSE = 2
DEFAULT_PORT = 5001
# Below this, ports need a right.
LOW_PORTS = 1024
DEFAULT_HEALTH_PORT = 5000


class Model(NamedTuple):
    """The model's folder: ``path`` is seen from the folder of the script's files if it is in that (``in_app``), else it
    is absolute."""

    path: str
    in_app: bool


class Facts(NamedTuple):
    """All that templates read. Paths have slashes."""

    name: str
    image: str
    server: str  # the version of this package
    python: str  # the release, such as 3.11
    wheel: str | None
    folder: str  # of the script's files, absolute
    app_from_out: str  # that folder, seen from the files
    out_from_app: str  # the files, seen from that folder
    script: str  # seen from that folder
    config_file: str | None  # a configuration file in that folder that was named; the server finds others itself
    command: tuple[str, ...]  # what starts the server here, with absolute paths
    host: str | None
    port: int
    health_port: int | None
    is_rest: bool
    workers: int
    calls_at_once: int
    # Whether the server also speaks the Open Inference Protocol, and the name of its model, if that is given.
    serves_v2: bool
    given_model_name: str | None
    shares_model: bool
    graceful: int
    scoring_timeout_ms: int | None  # None: not given
    model: Model | None
    requirements: Requirements | None
    given: tuple[Variable, ...]
    secrets: tuple[str, ...]
    measured: Measured | None
    sizes: Sizes

    @property
    def arguments(self) -> tuple[str, ...]:
        """The arguments of the command in an image."""
        return self.arguments_on(self.port)

    def arguments_on(self, port: int) -> tuple[str, ...]:
        """The same with another port."""
        words = ["--entry_script", self.script]
        words += ["--config_file", self.config_file] if self.config_file else []
        words += ["--port", str(port)]
        words += ["--health_port", str(self.health_port)] if self.health_port else []
        return (*words, *(["--rest"] if self.is_rest else []))

    @property
    def image_without_tag(self) -> str:
        """The name of the image without its tag and digest. A colon before the last slash is that of a port."""
        folder, slash, last = self.image.partition("@")[0].rpartition("/")
        return folder + slash + last.partition(":")[0]

    @property
    def has_low_port(self) -> bool:
        """Whether the server listens on a port that Linux keeps for root."""
        return min(self.port, self.health_port or self.port) < LOW_PORTS

    @property
    def probe_port(self) -> int:
        """The port that health checks ask."""
        return self.health_port or self.port

    @property
    def model_in_image(self) -> str | None:
        """Where the script finds its model in a container."""
        if self.model is None:
            return None
        return posixpath.normpath(posixpath.join(APP, self.model.path)) if self.model.in_app else MODEL

    @property
    def model_here(self) -> str | None:
        """The absolute path of the model on this machine."""
        return posixpath.normpath(posixpath.join(self.folder, self.model.path)) if self.model else None

    @property
    def rollout_seconds(self) -> int:
        """How long a new pod may take to become ready before Kubernetes calls the rollout failed: the start, and five
        minutes to fetch the image; never less than Kubernetes' own default."""
        return max(600, self.sizes.start_seconds + 300)

    @property
    def five_starts_seconds(self) -> int:
        """How long five starts in a row may take, with the pauses of systemd between them."""
        return 5 * (self.sizes.start_seconds + RESTART_PAUSE)

    @property
    def stop_seconds(self) -> int:
        """How long the command may take to end after SIGTERM."""
        return self.graceful + STOP_MARGIN

    @property
    def names_model(self) -> bool:
        """Whether the name of its model is given."""
        return self.given_model_name is not None

    @property
    def model_name(self) -> str:
        """The name of its model on KServe, where it is that of the service unless it is given."""
        return self.given_model_name or self.name

    @property
    def ready_path(self) -> str:
        """Where KServe asks if the server is ready."""
        return "/v2/health/ready" if self.serves_v2 else "/readyz"

    @property
    def live_path(self) -> str:
        """Where KServe asks if the server lives."""
        return "/v2/health/live" if self.serves_v2 else "/livez"

    @property
    def deployed(self) -> tuple[Variable, ...]:
        """The variables of a deployment: those that are given, and those that people change first."""
        first = (
            Variable("WORKER_COUNT", str(self.workers)),
            Variable("AZMLINFSRV_GRACEFUL_TIMEOUT", str(self.graceful)),
            Variable("AZMLINFSRV_MAX_BUFFERED", str(self.sizes.buffered)),
        )
        names = {variable.name for variable in first}
        return (*first, *(variable for variable in self.given if variable.name not in names))


def gather(
    flags: Mapping[str, Any], raw: RawSettings, given: Settings, measured: Measured | None
) -> tuple[Facts, tuple[str, ...]]:
    """The facts, and sentences about settings that the files do not have. Raises UsageError."""
    app = Path(given.app_root).resolve()
    out = Path(raw.folder, flags.get("out", ".")).resolve()
    name = flags.get("name") or options.name_from(app.name)
    config_file = inside(Path(given.config_file_read), app) if given.config_file_read else None
    taken = carried(given, raw, app, with_file=config_file is not None)
    required = packages.find(_in_app(flags.get("requirements"), "--requirements", raw, app), app, package.__version__)
    script, model = _script(given, app), _model(given, raw, app)
    for path in (app.as_posix(), _relative(out, app), script, config_file or "", model.path if model else ""):
        if not path.isprintable():
            raise UsageError(f"{path!r} has a control character, which the files cannot have: rename it")
    buffered = None if given.origins["max_buffered"].kind == DEFAULT else given.max_buffered
    is_thread = given.worker_class == table.THREAD
    facts = Facts(
        name=name,
        image=flags.get("image") or f"{name}:1",
        server=package.__version__,
        python=f"{sys.version_info[0]}.{sys.version_info[1]}",
        wheel=_in_app(flags.get("wheel"), "--wheel", raw, app),
        folder=app.as_posix(),
        app_from_out=_relative(app, out),
        out_from_app=_relative(out, app),
        script=script,
        config_file=None if given.origins["config_file"].kind == DEFAULT else config_file,
        command=_command(),
        host=None if given.origins["host"].kind == DEFAULT else given.host,
        port=given.port or DEFAULT_PORT,
        health_port=(given.health_port or DEFAULT_HEALTH_PORT) if given.separate_health else None,
        is_rest=given.rest,
        workers=given.worker_count,
        calls_at_once=requests_at_once(given, app / script),
        serves_v2=given.serves_v2,
        given_model_name=None if given.origins["model_name"].kind == DEFAULT else given.model_name,
        shares_model=is_thread,
        graceful=given.graceful_timeout,
        scoring_timeout_ms=None if given.origins["scoring_timeout_ms"].kind == DEFAULT else given.scoring_timeout_ms,
        model=model,
        requirements=required,
        given=taken.variables,
        secrets=taken.secrets,
        measured=measured,
        sizes=sizes(measured, given.worker_count, is_thread, buffered, given.max_request_size),
    )
    notes = [*taken.notes, *(required.notes if required else ())]
    if given.cores is not None:
        notes.append(
            f"{given.origins['worker_count'].name} is auto, which means {given.worker_count} on this machine, so the "
            f"files have {given.worker_count}: give the number that is wanted elsewhere."
        )
    return facts, tuple(notes)


# ---- Files


def _script(given: Settings, app: Path) -> str:
    if not given.entry_script:
        raise UsageError("name the script with --entry_script")
    path = Path(given.app_root, given.entry_script).resolve()
    if not path.is_file():
        raise UsageError(f"there is no file {path}: name the script with --entry_script")
    found = inside(path, app)
    if found is None:
        raise UsageError(
            f"{path} is not in {app}, the folder that an image is made of: change to a folder that has all files of "
            "the script, or name it with AML_APP_ROOT"
        )
    return found


def _model(given: Settings, raw: RawSettings, app: Path) -> Model | None:
    if not given.model_dir:
        return None
    path = Path(raw.folder, given.model_dir).resolve()
    found = "." if path == app else inside(path, app)
    return Model(path.as_posix(), in_app=False) if found is None else Model(found, in_app=True)


def _in_app(path: str | None, option: str, raw: RawSettings, app: Path) -> str | None:
    """A file that was named by an option, from the folder of the script's files."""
    if path is None:
        return None
    file = Path(raw.folder, path).resolve()
    found = inside(file, app)
    if not file.is_file() or found is None:
        raise UsageError(f"{option} {path}: there is no such file in {app}, the folder that an image is made of")
    return found


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


def _command() -> tuple[str, ...]:
    """What starts the server in this environment."""
    installed = Path(sys.executable).parent / "azmlinfsrv"
    if installed.is_file():
        return (installed.as_posix(),)
    return (Path(sys.executable).as_posix(), "-m", package.__name__)
