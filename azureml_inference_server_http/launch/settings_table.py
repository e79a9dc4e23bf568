"""The table of all settings: names, allowed values, defaults and meaning of each. No default is
written anywhere else.

One file of more than 400 lines, because it is data. ``settings.py`` resolves values with it, ``options.py``
makes options and help from it, ``banner.py`` the banner, ``tools/generate_docs.py`` the
documentation page. Rules: contract sections 1 to 3. Rows with a banner label must be in the order
of the banner.
"""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

# Kinds of values. setting_values.py has a parser for each.
TEXT = "text"
NON_EMPTY = "non-empty text"
PATH = "path, kept as given"
RESOLVED_PATH = "path, made absolute when it is given by the option"
INTEGER = "whole number"
LENIENT_INTEGER = "whole number, or the default"
NUMBER = "number"
BOOLEAN = "true or false"
ON_OFF = "on or off"
EXACT_TRUE = "on only for the exact text true"
ANY_CASE_TRUE = "on only for the word true in any case"
LOG_LEVEL = "log level"
CHOICE = "one of a few words"
NETWORKS = "list of networks"
VARIABLES = "variables for workers"
PROTOCOLS = "list of protocols"
MODEL_NAME = "name that is one segment of a path"

# Conditions under which a resolved value is exported to the environment of the script.
NEVER = "never"
FROM_OPTION = "when given by the option"
ALWAYS = "always"
WITH_OWN_VERSION = "unless SERVER_VERSION_LOG_RESPONSE_ENABLED is off"

TRUE_WORDS = frozenset({"true", "yes", "on", "1", "t", "y"})
FALSE_WORDS = frozenset({"false", "no", "off", "0", "f", "n"})
# As many workers as there are cores.
AUTO = "auto"
# The classes of workers.
PROCESS = "process"
THREAD = "thread"
# Thread pools are sized by the number of workers.
SHARED = "shared"
# Where /metrics is answered.
METRICS_ON, METRICS_OFF, METRICS_HEALTH = "on", "off", "health"
# The protocols of requests to the script.
SCORE, V2 = "score", "v2"
# What the log looks like, and which requests have a line in it.
TEXT_LINES, JSON = "text", "json"
ACCESS_OFF, ACCESS_ERRORS, ACCESS_ALL = "off", "errors", "all"

LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}
# Words that other loggers use for levels, with the nearest level of Python.
LEVEL_WORDS = {
    **{word: "DEBUG" for word in ("NOTSET", "ALL", "TRACE", "VERBOSE")},
    **{word: "INFO" for word in ("INFORMATION", "INFORMATIONAL", "NOTICE")},
    "WARN": "WARNING",
    "ERR": "ERROR",
    **{word: "CRITICAL" for word in ("FATAL", "CRIT", "ALERT", "EMERGENCY", "PANIC", "OFF")},
}

# For these kinds a blank value counts as not given, because compose files and templates write
# "WORKER_COUNT=" for a value that they do not have.
BLANK_MEANS_UNSET = frozenset(
    {
        *(NON_EMPTY, INTEGER, LENIENT_INTEGER, NUMBER, BOOLEAN, ON_OFF, LOG_LEVEL),
        *(CHOICE, NETWORKS, VARIABLES, PROTOCOLS, MODEL_NAME),
    }
)
# For these kinds a wrong value causes a warning, and the default is used, because 1.5.1 serves with
# any text, and OpenTelemetry demands it for its variables.
WRONG_MEANS_DEFAULT = frozenset({LOG_LEVEL, LENIENT_INTEGER})

# Upper limits far above any useful value, so that a value fits into a timer or a 64-bit length.
_MANY_SECONDS = 10**9
_MANY_MILLISECONDS = 10**15
_MANY_BYTES = 10**15

GROUPS = {
    "paths": "Where the script, its model and the configuration are.",
    "network": "Where the server listens, and for whom.",
    "workers": "What runs the script, and for how long.",
    "limits": "What the server accepts before it refuses.",
    "diagnostics": "What the server tells about itself.",
    "telemetry": "Application Insights; [telemetry.md](telemetry.md) explains it.",
    "names": "What the service is called, in telemetry and in the swagger documents.",
}


class Setting(NamedTuple):
    """One row of the table. ``name`` is also the name of the attribute of ``settings.Settings``."""

    name: str
    group: str
    kind: str
    help: str
    default: str | int | float | bool | None = None
    # The default in the help, if its own text would not be clear.
    default_text: str | None = None
    # The allowed values, for the message about a refused value: "it must be ...".
    allowed: str = "text"
    # The words of a CHOICE.
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: int | None = None
    flag: str | None = None
    metavar: str | None = None
    # The word in the message "invalid WORD value: '0'", which the contract fixes for three options.
    flag_type: str | None = None
    # False if 1.5.1 does not have the option. Such an option does not change the meaning of an
    # abbreviation.
    original: bool = True
    hidden: bool = False
    # What joins the values of an option that may be given several times; None for other options.
    joined_by: str | None = None
    # True if the word "auto" is allowed too; see ``AUTO``.
    takes_auto: bool = False
    # The environment variable with the value.
    environment: str | None = None
    # True if the name of the variable is recognised in any case (scoring_timeout_ms=444), as with
    # 1.5.1.
    any_case: bool = False
    config_key: str | None = None
    # The environment variable that the value is exported to, and the condition for that.
    exports: str | None = None
    exported: str = NEVER
    banner: str | None = None
    banner_value: str = "{}"
    # True if the banner shows the value in force. For other rows it shows the given value, and None
    # for a default.
    banner_in_force: bool = False
    # True if no message may show the value.
    secret: bool = False
    # Exceptions and details, for the documentation page.
    note: str | None = None


def default_text(setting: Setting) -> str:
    """The default as the help shows it."""
    if setting.default_text is not None:
        return setting.default_text
    if isinstance(setting.default, bool):
        return "on" if setting.default else "off"
    return str(setting.default)


def is_hidden(setting: Setting) -> bool:
    """True if no message may show the value: it is a secret, or may be one."""
    return setting.secret or setting.kind == VARIABLES


def blank_means_unset(setting: Setting) -> bool:
    """True if a blank value counts as not given. A blank path does so for settings that 1.5.1 does
    not have; for its own settings the contract says what a blank path means."""
    return setting.kind in BLANK_MEANS_UNSET or (not setting.original and setting.kind in (PATH, RESOLVED_PATH))


def allowed_text(setting: Setting) -> str:
    """What a value must be, in words, with the upper bound that few need to know."""
    if setting.maximum is None or str(setting.maximum) in setting.allowed:
        return setting.allowed
    return f"{setting.allowed}, at most {setting.maximum}"


def label(setting: Setting) -> str:
    """The name a person knows the setting by: its variable, else its option."""
    return setting.environment or setting.flag or setting.name


SETTINGS: tuple[Setting, ...] = (
    Setting(
        name="entry_script",
        group="paths",
        kind=RESOLVED_PATH,
        help="Scoring script with init() and run(). Its variable alone starts nothing: give this or --config_file.",
        default_text="none; with --config_file alone the module main is served",
        allowed="the path of a Python file",
        flag="--entry_script",
        metavar="FILE",
        environment="AZUREML_ENTRY_SCRIPT",
        any_case=True,
        config_key="AZUREML_ENTRY_SCRIPT",
        exports="AZUREML_ENTRY_SCRIPT",
        exported=FROM_OPTION,
        banner="Entry Script Name",
    ),
    Setting(
        name="model_dir",
        group="paths",
        kind=PATH,
        help="Folder of the model. The script reads it from AZUREML_MODEL_DIR.",
        default="",
        default_text="none",
        allowed="the path of a folder",
        flag="--model_dir",
        metavar="DIR",
        environment="AZUREML_MODEL_DIR",
        any_case=True,
        config_key="AZUREML_MODEL_DIR",
        exports="AZUREML_MODEL_DIR",
        exported=FROM_OPTION,
        banner="Model Directory",
        note="Kept as typed. In the configuration file it serves the server's own listing only: the environment of the "
        "script is not changed.",
    ),
    Setting(
        name="config_file",
        group="paths",
        kind=RESOLVED_PATH,
        help="JSON file with settings.",
        default_text="config.json in AML_APP_ROOT, else beside the entry script, if there is one",
        allowed="the path of a JSON file",
        flag="--config_file",
        metavar="FILE",
        environment="AZUREML_CONFIG_FILE",
        exports="AZUREML_CONFIG_FILE",
        exported=FROM_OPTION,
        banner="Config File",
        note="A file that is missing or has no bytes is skipped with a warning. The banner shows the path only if it "
        "was given; the log says which file was read.",
    ),
    Setting(
        name="worker_count",
        group="workers",
        kind=INTEGER,
        help="Processes, or threads, that run the script. auto: as many as there are cores for this server.",
        default=1,
        allowed="auto, or a whole number, 1 or more",
        minimum=1,
        maximum=_MANY_SECONDS,
        takes_auto=True,
        flag="--worker_count",
        metavar="N",
        flag_type="validate_worker_count",
        environment="WORKER_COUNT",
        exports="WORKER_COUNT",
        exported=ALWAYS,
        banner="Worker Count",
    ),
    Setting(
        name="worker_timeout",
        group="workers",
        kind=INTEGER,
        help="Seconds one call of run() may take before its worker is killed and replaced; 0 means no limit.",
        default=300,
        allowed="a whole number of seconds, 0 or more (0 means no limit)",
        minimum=0,
        maximum=_MANY_BYTES,
        environment="WORKER_TIMEOUT",
        banner="Worker Timeout (seconds)",
        banner_in_force=True,
        note="Does not apply to init(), which may take as long as it needs. By default it is the shorter "
        "limit: for calls to be interrupted instead of killed, set SCORING_TIMEOUT_MS below it.",
    ),
    Setting(
        name="port",
        group="network",
        kind=INTEGER,
        help="Port of the server; 0 takes a free one and says which.",
        default=5001,
        allowed="a whole number from 0 to 65535 (0 takes a free port)",
        minimum=0,
        maximum=65535,
        flag="--port",
        metavar="PORT",
        flag_type="validate_port",
        exports="SERVER_PORT",
        exported=ALWAYS,
        banner="Server Port",
        note="SERVER_PORT is written for the script and never read. With 0 it holds the port that was taken, and so do "
        "the banner and the line `Listening at:` of the log.",
    ),
    Setting(
        name="health_port",
        group="network",
        kind=INTEGER,
        help="Port of a second listener for health checks, used only with SEPERATE_HEALTH_ENDPOINT=true. 0 takes a "
        "free one.",
        default=5000,
        allowed="a whole number from 0 to 65535 (0 takes a free port)",
        minimum=0,
        maximum=65535,
        flag="--health_port",
        metavar="PORT",
        flag_type="validate_port",
        exports="HEALTH_PORT",
        exported=ALWAYS,
        banner="Health Port",
        note="It serves all routes, `/score` too, so do not count on it to keep them apart. The variable HEALTH_PORT "
        "is written for the script and never read; it holds the server's port unless SEPERATE_HEALTH_ENDPOINT is on.",
    ),
    Setting(
        name="app_insights_enabled",
        group="telemetry",
        kind=EXACT_TRUE,
        help="Whether telemetry goes to Application Insights; needs a key or a connection string.",
        default=False,
        allowed="true or false",
        environment="AML_APP_INSIGHTS_ENABLED",
        exports="AML_APP_INSIGHTS_ENABLED",
        exported=ALWAYS,
        banner="Application Insights Enabled",
        note="`--appinsights_instrumentation_key` and `--appinsights_connection_string` turn it on. A key that is no "
        "UUID, or a connection string that cannot be used, turns it off. [telemetry.md](telemetry.md) says what is "
        "sent.",
    ),
    Setting(
        name="app_insights_key",
        group="telemetry",
        kind=TEXT,
        help="Instrumentation key of Application Insights; also turns it on.",
        default_text="none",
        allowed="a UUID",
        flag="--appinsights_instrumentation_key",
        metavar="KEY",
        environment="AML_APP_INSIGHTS_KEY",
        exports="AML_APP_INSIGHTS_KEY",
        exported=FROM_OPTION,
        banner="Application Insights Key",
        banner_value="AppInsights key provided",
        secret=True,
    ),
    Setting(
        name="server_version",
        group="diagnostics",
        kind=TEXT,
        help="Value of the response header x-ms-server-version.",
        default="",
        default_text="azmlinfsrv/ and the version of the server",
        environment="HTTP_X_MS_SERVER_VERSION",
        exports="HTTP_X_MS_SERVER_VERSION",
        exported=WITH_OWN_VERSION,
        banner="Inferencing HTTP server version",
        note="The variable counts only when SERVER_VERSION_LOG_RESPONSE_ENABLED is off; then it is left alone. "
        "Empty means no header.",
    ),
    Setting(
        name="cors_origins",
        group="network",
        kind=TEXT,
        help='Origins that may call the server from a browser, separated by commas, such as "https://a.com, b.com".',
        default_text="none",
        flag="--access_control_allow_origins",
        metavar="ORIGINS",
        environment="AML_CORS_ORIGINS",
        any_case=True,
        exports="AML_CORS_ORIGINS",
        exported=FROM_OPTION,
        banner="CORS for the specified origins",
        banner_value="Enabling CORS for {}",
        note="Each is an origin, `*` for all, or a regular expression that matches whole origins.",
    ),
    Setting(
        name="separate_health",
        group="network",
        kind=EXACT_TRUE,
        help="Whether a second listener, on the health port, answers health checks too. Spelled as in 1.5.1.",
        default=False,
        allowed="true or false",
        environment="SEPERATE_HEALTH_ENDPOINT",
        banner="Create dedicated endpoint for health",
    ),
    # From here on rows have no banner line.
    Setting(
        name="host",
        group="network",
        kind=NON_EMPTY,
        help="Address to listen on; 127.0.0.1 accepts callers on this machine only.",
        default="0.0.0.0",
        allowed="an IP address or a host name",
        flag="--host",
        metavar="ADDRESS",
        original=False,
        environment="AZMLINFSRV_HOST",
        config_key="AZMLINFSRV_HOST",
    ),
    Setting(
        name="app_root",
        group="paths",
        kind=PATH,
        help="Folder that a relative AZUREML_ENTRY_SCRIPT starts from; --entry_script starts from the current folder. "
        "It is on sys.path, and config.json, logging.json and swagger files are looked for in it.",
        default_text="the current folder",
        allowed="the path of a folder",
        environment="AML_APP_ROOT",
        exports="AML_APP_ROOT",
        exported=ALWAYS,
    ),
    Setting(
        name="source_directory",
        group="paths",
        kind=PATH,
        help="Folder below AML_APP_ROOT that is put on sys.path too.",
        default_text="none",
        allowed="the path of a folder",
        environment="AZUREML_SOURCE_DIRECTORY",
        any_case=True,
        config_key="AZUREML_SOURCE_DIRECTORY",
    ),
    Setting(
        name="rest",
        group="network",
        kind=BOOLEAN,
        help="Only sets TRANSPORT_PROTOCOL for the script: rest with it, grpc without.",
        default=False,
        allowed="true or false",
        flag="--rest",
        hidden=True,
        exports="TRANSPORT_PROTOCOL",
        exported=ALWAYS,
        note="Kept for existing command lines; not shown by `--help`.",
    ),
    Setting(
        name="worker_preload",
        group="workers",
        kind=ANY_CASE_TRUE,
        help="Whether init() runs once, before the workers are forked, and not in each worker.",
        default=False,
        allowed="true or false",
        environment="WORKER_PRELOAD",
    ),
    Setting(
        name="scoring_timeout_ms",
        group="limits",
        kind=INTEGER,
        help="Milliseconds after which a call of run() is interrupted and answered with 500; 0 means no limit.",
        default=3600000,
        allowed="a whole number of milliseconds, 0 or more (0 means no limit)",
        minimum=0,
        maximum=_MANY_MILLISECONDS,
        environment="SCORING_TIMEOUT_MS",
        any_case=True,
        config_key="SCORING_TIMEOUT_MS",
        note="Does not apply to a streamed reply that has begun. By default WORKER_TIMEOUT is shorter, and "
        "kills the worker instead.",
    ),
    Setting(
        name="max_queue",
        group="limits",
        kind=INTEGER,
        help="Requests that may wait for a worker; further ones are answered with 503 at once.",
        default=2048,
        allowed="a whole number, 1 or more",
        minimum=1,
        maximum=_MANY_SECONDS,
        flag="--max_queue",
        metavar="N",
        original=False,
        environment="AZMLINFSRV_MAX_QUEUE",
        config_key="AZMLINFSRV_MAX_QUEUE",
    ),
    Setting(
        name="max_request_size",
        group="limits",
        kind=INTEGER,
        help="Largest request body in bytes; larger ones are answered with 413.",
        default=104857600,
        default_text="104857600 (100 MiB)",
        allowed="a whole number of bytes, 1 or more",
        minimum=1,
        maximum=_MANY_BYTES,
        flag="--max_request_size",
        metavar="BYTES",
        original=False,
        environment="AZMLINFSRV_MAX_REQUEST_SIZE",
        config_key="AZMLINFSRV_MAX_REQUEST_SIZE",
    ),
    Setting(
        name="graceful_timeout",
        group="limits",
        kind=INTEGER,
        help="Seconds after SIGTERM within which requests, then threads and exit handlers of the script, are finished.",
        default=30,
        allowed="a whole number of seconds, 0 or more",
        minimum=0,
        maximum=_MANY_SECONDS,
        flag="--graceful_timeout",
        metavar="SECONDS",
        original=False,
        environment="AZMLINFSRV_GRACEFUL_TIMEOUT",
        config_key="AZMLINFSRV_GRACEFUL_TIMEOUT",
    ),
    Setting(
        name="queue_timeout",
        group="limits",
        kind=NUMBER,
        help="Seconds a request may wait for a free worker; then it is answered 503. 0: as long as its client waits.",
        default=0,
        default_text="0 (no limit)",
        allowed="a number of seconds, 0 or more",
        minimum=0,
        maximum=_MANY_SECONDS,
        flag="--queue_timeout",
        metavar="SECONDS",
        original=False,
        environment="AZMLINFSRV_QUEUE_TIMEOUT",
        config_key="AZMLINFSRV_QUEUE_TIMEOUT",
    ),
    Setting(
        name="max_buffered",
        group="limits",
        kind=INTEGER,
        help="Bytes of request and response bodies held at once; beyond that new bodies are answered 503.",
        default=1024**3,
        default_text="1073741824 (1 GiB)",
        allowed="a whole number of bytes, 1 or more",
        minimum=1,
        maximum=_MANY_BYTES,
        flag="--max_buffered",
        metavar="BYTES",
        original=False,
        environment="AZMLINFSRV_MAX_BUFFERED",
        config_key="AZMLINFSRV_MAX_BUFFERED",
    ),
    Setting(
        name="client_timeout",
        group="limits",
        kind=NUMBER,
        help="Seconds a client has for a request head, and the longest pause in sending a body or reading a reply.",
        default=60,
        allowed="a number of seconds, 0.001 or more",
        minimum=0.001,
        maximum=_MANY_SECONDS,
        flag="--client_timeout",
        metavar="SECONDS",
        original=False,
        environment="AZMLINFSRV_CLIENT_TIMEOUT",
        config_key="AZMLINFSRV_CLIENT_TIMEOUT",
    ),
    Setting(
        name="min_body_rate",
        group="limits",
        kind=INTEGER,
        help="Bytes per second at which a request body has to arrive; slower ones are answered 408. 0: no limit.",
        default=240,
        allowed="a whole number of bytes, 0 or more (0 means no limit)",
        minimum=0,
        maximum=_MANY_BYTES,
        flag="--min_body_rate",
        metavar="BYTES",
        original=False,
        environment="AZMLINFSRV_MIN_BODY_RATE",
        config_key="AZMLINFSRV_MIN_BODY_RATE",
        note="A body may fall behind this rate by --client_timeout seconds, and by 10 seconds at least. One that is "
        "more than a second behind gives way (503) when other requests need its memory (--max_buffered).",
    ),
    Setting(
        name="keep_alive",
        group="limits",
        kind=NUMBER,
        help="Seconds an idle connection is kept open for the next request.",
        default=75,
        allowed="a number of seconds, 0.001 or more",
        minimum=0.001,
        maximum=_MANY_SECONDS,
        flag="--keep_alive",
        metavar="SECONDS",
        original=False,
        environment="AZMLINFSRV_KEEP_ALIVE",
        config_key="AZMLINFSRV_KEEP_ALIVE",
        note="Only `/score` keeps connections open unasked. Health, `/swagger.json` and errors such as 404 close "
        "theirs, unless the client sends `Connection: keep-alive`.",
    ),
    Setting(
        name="worker_class",
        group="workers",
        kind=CHOICE,
        choices=(PROCESS, THREAD),
        help="What runs the script: processes, or threads of one process that share one copy of it.",
        default=THREAD if sys.platform == "win32" else PROCESS,
        default_text="process (thread on Windows)",
        allowed="process or thread",
        flag="--worker_class",
        metavar="CLASS",
        original=False,
        environment="AZMLINFSRV_WORKER_CLASS",
        config_key="AZMLINFSRV_WORKER_CLASS",
        note="Threads need less memory, and small calls of run() are answered faster, but the calls take turns in one "
        "interpreter, and a script that crashes or exits ends the server. docs/threads.md lists the differences. "
        "On Windows there are threads only.",
    ),
    Setting(
        name="max_concurrency",
        group="workers",
        kind=INTEGER,
        help="Calls of an async run() that each worker runs at once. Other scripts run one call at a time.",
        default=100,
        allowed="a whole number, 1 or more",
        minimum=1,
        maximum=65535,
        flag="--max_concurrency",
        metavar="COUNT",
        original=False,
        environment="AZMLINFSRV_MAX_CONCURRENCY",
        config_key="AZMLINFSRV_MAX_CONCURRENCY",
        note="[async.md](async.md) explains it.",
    ),
    Setting(
        name="max_batch_size",
        group="workers",
        kind=INTEGER,
        help="Waiting requests that one call of run() answers together, if its input is an array or a frame by "
        "@input_schema.",
        default=1,
        default_text="1 (each request gets a call of its own)",
        allowed="a whole number from 1 to 1024",
        minimum=1,
        maximum=1024,
        flag="--max_batch_size",
        metavar="COUNT",
        original=False,
        environment="AZMLINFSRV_MAX_BATCH_SIZE",
        config_key="AZMLINFSRV_MAX_BATCH_SIZE",
        note="[batching.md](batching.md) says which scripts it works for.",
    ),
    Setting(
        name="batch_wait_ms",
        group="workers",
        kind=INTEGER,
        help="Milliseconds for which a request waits for others to share a call of run() with.",
        default=0,
        default_text="0 (only requests that wait anyway share a call)",
        allowed="a whole number of milliseconds from 0 to 250",
        minimum=0,
        maximum=250,
        flag="--batch_wait_ms",
        metavar="MS",
        original=False,
        environment="AZMLINFSRV_BATCH_WAIT_MS",
        config_key="AZMLINFSRV_BATCH_WAIT_MS",
    ),
    Setting(
        name="worker_threads",
        group="workers",
        kind=INTEGER,
        help="Calls of run() at once in each worker process, which share one model. For code that gives up the GIL.",
        default=1,
        allowed="a whole number, 1 or more",
        minimum=1,
        maximum=65535,
        flag="--worker_threads",
        metavar="COUNT",
        original=False,
        environment="AZMLINFSRV_WORKER_THREADS",
        config_key="AZMLINFSRV_WORKER_THREADS",
        note="With more than 1, run() is not called on the main thread. [worker-threads.md](worker-threads.md) "
        "explains it.",
    ),
    Setting(
        name="worker_env",
        group="workers",
        kind=VARIABLES,
        help="A variable that each worker process gets before it loads the script, such as "
        "CUDA_VISIBLE_DEVICES={worker}. {worker} is the number of the worker, from 0.",
        default_text="none",
        allowed="NAME=VALUE, or several separated by semicolons, which no value can have; {worker} and {worker%4} "
        "in values stand for the number of the worker",
        flag="--worker_env",
        metavar="NAME=VALUE",
        joined_by=";",
        original=False,
        environment="AZMLINFSRV_WORKER_ENV",
        config_key="AZMLINFSRV_WORKER_ENV",
        note="The option may be given several times. No message shows the values. "
        "[placement.md](placement.md) explains it.",
    ),
    Setting(
        name="init_concurrency",
        group="workers",
        kind=INTEGER,
        help="Workers that load the script at once, init() included; 0 means all.",
        default=0,
        default_text="0 (all)",
        allowed="a whole number, 0 or more",
        minimum=0,
        maximum=_MANY_SECONDS,
        flag="--init_concurrency",
        metavar="COUNT",
        original=False,
        environment="AZMLINFSRV_INIT_CONCURRENCY",
        config_key="AZMLINFSRV_INIT_CONCURRENCY",
        note="[placement.md](placement.md) explains it.",
    ),
    Setting(
        name="warmup_samples",
        group="workers",
        kind=RESOLVED_PATH,
        help="Folder with samples, as azmlinfsrv validate takes them. Each worker calls run() with them before it is "
        "ready.",
        default_text="none",
        allowed="the path of a folder",
        flag="--warmup_samples",
        metavar="DIR",
        original=False,
        environment="AZMLINFSRV_WARMUP_SAMPLES",
        config_key="AZMLINFSRV_WARMUP_SAMPLES",
        note="[placement.md](placement.md) explains it.",
    ),
    Setting(
        name="thread_pools",
        group="workers",
        kind=CHOICE,
        help="Threads of BLAS, OpenMP and numexpr in each worker process. shared: with several workers, their share of "
        "the cores, unless a variable such as OMP_NUM_THREADS says otherwise. off: what the libraries choose.",
        default=SHARED,
        allowed="shared or off",
        choices=(SHARED, "off"),
        flag="--thread_pools",
        metavar="WORD",
        original=False,
        environment="AZMLINFSRV_THREAD_POOLS",
        config_key="AZMLINFSRV_THREAD_POOLS",
        note="[placement.md](placement.md) explains it.",
    ),
    Setting(
        name="max_requests",
        group="workers",
        kind=INTEGER,
        help="Requests after which a worker is replaced. Each worker's limit differs by up to a tenth, so that not all "
        "are replaced at once.",
        default=0,
        default_text="0 (never)",
        allowed="a whole number, 0 or more",
        minimum=0,
        maximum=_MANY_BYTES,
        flag="--max_requests",
        metavar="COUNT",
        original=False,
        environment="AZMLINFSRV_MAX_REQUESTS",
        config_key="AZMLINFSRV_MAX_REQUESTS",
    ),
    Setting(
        name="max_worker_rss",
        group="workers",
        kind=INTEGER,
        help="Resident memory in MiB above which a worker is replaced once it is free.",
        default=0,
        default_text="0 (never)",
        allowed="a whole number of MiB, 0 or more",
        minimum=0,
        maximum=_MANY_SECONDS,
        flag="--max_worker_rss",
        metavar="MIB",
        original=False,
        environment="AZMLINFSRV_MAX_WORKER_RSS",
        config_key="AZMLINFSRV_MAX_WORKER_RSS",
    ),
    Setting(
        name="error_details",
        group="diagnostics",
        kind=BOOLEAN,
        help="Put place, message and traceback of an error of run() into the reply, and the place of a value that "
        "cannot be sent. Callers then see parts of the script.",
        default=False,
        allowed="true or false (also yes/no, on/off, 1/0)",
        flag="--error_details",
        original=False,
        environment="AZMLINFSRV_ERROR_DETAILS",
        config_key="AZMLINFSRV_ERROR_DETAILS",
        note="A browser (`Accept: text/html`) gets a page.",
    ),
    Setting(
        name="client_errors",
        group="diagnostics",
        kind=BOOLEAN,
        help="Answer what the request is to blame for with its status (4xx) in place of 500: a body that is no JSON, a "
        "value that does not match the schema, abort(404).",
        default=False,
        allowed="true or false (also yes/no, on/off, 1/0)",
        flag="--client_errors",
        original=False,
        environment="AZMLINFSRV_CLIENT_ERRORS",
        config_key="AZMLINFSRV_CLIENT_ERRORS",
        note="x-ms-run-function-failed is then False in these replies. The log has the reason at level DEBUG.",
    ),
    Setting(
        name="plain",
        group="diagnostics",
        kind=BOOLEAN,
        help="Write to a terminal what a file gets: the long start, no colours, no progress of init().",
        default=False,
        allowed="true or false (also yes/no, on/off, 1/0)",
        flag="--plain",
        original=False,
        environment="AZMLINFSRV_PLAIN",
        config_key="AZMLINFSRV_PLAIN",
        note="`NO_COLOR=1` turns off the colours alone, `FORCE_COLOR=1` gives the log colours in files and pipes too.",
    ),
    Setting(
        name="log_level",
        group="diagnostics",
        kind=LOG_LEVEL,
        help="Lowest level that the server's loggers write.",
        default="INFO",
        allowed="DEBUG, INFO, WARNING, ERROR or CRITICAL, or a number such as 20",
        environment="AZUREML_LOG_LEVEL",
        any_case=True,
        config_key="AZUREML_LOG_LEVEL",
        note="At DEBUG the log also says why an input was refused (400, 415). Other common words (TRACE, Information, "
        "verbose, NOTSET) and numbers mean the nearest level; any other text means the default, with a warning. A "
        "logging.json of your own decides alone.",
    ),
    Setting(
        name="log_format",
        group="diagnostics",
        kind=CHOICE,
        choices=(TEXT_LINES, JSON),
        help="What the log looks like: lines of text, or one JSON object a line.",
        default=TEXT_LINES,
        allowed="text or json",
        flag="--log_format",
        metavar="FORMAT",
        original=False,
        environment="AZMLINFSRV_LOG_FORMAT",
        config_key="AZMLINFSRV_LOG_FORMAT",
        note="[logs.md](logs.md) lists the fields. A logging.json of your own decides alone.",
    ),
    Setting(
        name="access_log",
        group="diagnostics",
        kind=CHOICE,
        choices=(ACCESS_OFF, ACCESS_ERRORS, ACCESS_ALL),
        help="Which requests have a line in the log: all, errors (status 400 or more) or off. Health checks have none.",
        default=ACCESS_ALL,
        allowed="off, errors or all",
        flag="--access_log",
        metavar="WHICH",
        original=False,
        environment="AZMLINFSRV_ACCESS_LOG",
        config_key="AZMLINFSRV_ACCESS_LOG",
    ),
    Setting(
        name="trusted_proxies",
        group="network",
        kind=NETWORKS,
        help="Networks of proxies whose X-Forwarded-For, Forwarded and X-Forwarded-Proto are believed, such as "
        '"10.0.0.0/8, 192.168.1.7".',
        default_text="none",
        allowed="IP addresses or networks such as 10.0.0.0/8, separated by commas",
        flag="--trusted_proxies",
        metavar="NETWORKS",
        original=False,
        environment="AZMLINFSRV_TRUSTED_PROXIES",
        config_key="AZMLINFSRV_TRUSTED_PROXIES",
        note="[logs.md](logs.md) says which address counts.",
    ),
    Setting(
        name="protocols",
        group="network",
        kind=PROTOCOLS,
        help="What the script is called by: score is /score, v2 the Open Inference Protocol as well, below /v2.",
        default=SCORE,
        allowed="score, or score,v2",
        flag="--protocols",
        metavar="LIST",
        original=False,
        environment="AZMLINFSRV_PROTOCOLS",
        config_key="AZMLINFSRV_PROTOCOLS",
        note="`/score` is always there. [open-inference.md](open-inference.md) describes v2. It needs numpy, "
        "and a run() with @input_schema or @raw_v2.",
    ),
    Setting(
        name="model_name",
        group="names",
        kind=MODEL_NAME,
        help="Name of the script as a model, in the paths below /v2/models.",
        default_text="the name of the entry script without .py; main without one",
        allowed="text without a slash",
        flag="--model_name",
        metavar="NAME",
        original=False,
        environment="AZMLINFSRV_MODEL_NAME",
        config_key="AZMLINFSRV_MODEL_NAME",
        note="Used with `--protocols score,v2` only. Its version is always 1.",
    ),
    Setting(
        name="debug_port",
        group="diagnostics",
        kind=INTEGER,
        help="Let a debugger attach to the one worker, at this port of 127.0.0.1; 0 takes a free one and says which.",
        default_text="none",
        allowed="a whole number from 0 to 65535 (0 takes a free port)",
        minimum=0,
        maximum=65535,
        flag="--debug_port",
        metavar="PORT",
        original=False,
        environment="AZMLINFSRV_DEBUG_PORT",
        config_key="AZMLINFSRV_DEBUG_PORT",
        note="Needs debugpy. There is one worker, its calls have no time limit, and it is never replaced for its age "
        "or size. docs/debugging.md has the configuration of an editor.",
    ),
    Setting(
        name="debug_wait",
        group="diagnostics",
        kind=BOOLEAN,
        help="With --debug_port: load the script when a debugger has attached, so that it can stop in init().",
        default=False,
        allowed="true or false (also yes/no, on/off, 1/0)",
        flag="--debug_wait",
        original=False,
        environment="AZMLINFSRV_DEBUG_WAIT",
        config_key="AZMLINFSRV_DEBUG_WAIT",
    ),
    Setting(
        name="reload",
        group="diagnostics",
        kind=BOOLEAN,
        help="Load the script again whenever its files change, without losing requests. For development.",
        default=False,
        allowed="true or false (also yes/no, on/off, 1/0)",
        flag="--reload",
        original=False,
        environment="AZMLINFSRV_RELOAD",
        config_key="AZMLINFSRV_RELOAD",
        note="Watches the script, the modules that it has imported from its own folders, and logging.json. "
        "docs/reload.md has the details.",
    ),
    Setting(
        name="reload_dir",
        group="diagnostics",
        kind=NON_EMPTY,
        help="With --reload: watch all files below this folder too, except those that .gitignore excludes.",
        default_text="none",
        allowed="the path of a folder, or several, joined by the system's path separator (: on Linux)",
        flag="--reload_dir",
        metavar="DIR",
        joined_by=os.pathsep,
        original=False,
        environment="AZMLINFSRV_RELOAD_DIR",
        config_key="AZMLINFSRV_RELOAD_DIR",
        note="The option may be given several times. A relative path starts from the current folder.",
    ),
    Setting(
        name="debugger_port",
        group="diagnostics",
        kind=INTEGER,
        help="Port on this machine where a debugger waits for debugpy to connect before the script is loaded.",
        default_text="none",
        allowed="a whole number from 0 to 65535 (0 means no debugger)",
        minimum=0,
        maximum=65535,
        environment="AZUREML_DEBUG_PORT",
        any_case=True,
        config_key="AZUREML_DEBUG_PORT",
    ),
    Setting(
        name="docs",
        group="diagnostics",
        kind=ON_OFF,
        help="Whether GET /docs is a page with which people try the script in a browser. GET / leads browsers there.",
        default=True,
        allowed="on or off (also true/false, yes/no, 1/0)",
        flag="--docs",
        metavar="WHETHER",
        original=False,
        environment="AZMLINFSRV_DOCS",
        config_key="AZMLINFSRV_DOCS",
        note="The page shows what `/swagger.json` says, which every caller can read. With `--error_details` it also "
        "shows the last error replies of `/score` to everybody. docs/docs-page.md describes it.",
    ),
    Setting(
        name="record",
        group="diagnostics",
        kind=RESOLVED_PATH,
        help="Record requests to /score and their answers in this folder, as samples for validate and replay.",
        default_text="none",
        allowed="the path of a folder",
        flag="--record",
        metavar="DIR",
        original=False,
        environment="AZMLINFSRV_RECORD",
        config_key="AZMLINFSRV_RECORD",
        note="Bodies are written as they are. Cookies, keys and tokens among the headers are not. The folder and its "
        "files are private. No request waits for the disk, or fails because of it. docs/validate.md has the details.",
    ),
    Setting(
        name="record_count",
        group="diagnostics",
        kind=INTEGER,
        help="Requests that --record may write. When the folder has that many, no more are recorded.",
        default=100,
        allowed="a whole number, 1 or more",
        minimum=1,
        maximum=99_999,
        flag="--record_count",
        metavar="N",
        original=False,
        environment="AZMLINFSRV_RECORD_COUNT",
        config_key="AZMLINFSRV_RECORD_COUNT",
    ),
    Setting(
        name="record_body_size",
        group="diagnostics",
        kind=INTEGER,
        help="Largest body in bytes that --record writes.",
        default=1024 * 1024,
        allowed="a whole number of bytes, 1 or more",
        minimum=1,
        maximum=_MANY_BYTES,
        flag="--record_body_size",
        metavar="BYTES",
        original=False,
        environment="AZMLINFSRV_RECORD_BODY_SIZE",
        config_key="AZMLINFSRV_RECORD_BODY_SIZE",
        note="A request with a larger body is not recorded. Of a larger answer only status and headers are.",
    ),
    Setting(
        name="metrics",
        group="diagnostics",
        kind=CHOICE,
        choices=(METRICS_ON, METRICS_OFF, METRICS_HEALTH),
        help="Where GET /metrics shows metrics for Prometheus: on all ports, on the health port alone, or nowhere.",
        default=METRICS_HEALTH,
        default_text="health",
        allowed="on, off or health",
        flag="--metrics",
        metavar="WHERE",
        original=False,
        environment="AZMLINFSRV_METRICS",
        config_key="AZMLINFSRV_METRICS",
        note="Without a health port of its own (SEPERATE_HEALTH_ENDPOINT), `health` means the server's port. "
        "docs/metrics.md lists the metrics.",
    ),
    Setting(
        name="server_version_log_response_enabled",
        group="diagnostics",
        kind=ANY_CASE_TRUE,
        help="Whether the response header x-ms-server-version names the version of the server.",
        default=True,
        allowed="true or false",
        environment="SERVER_VERSION_LOG_RESPONSE_ENABLED",
    ),
    Setting(
        name="app_insights_connection_string",
        group="telemetry",
        kind=NON_EMPTY,
        help="Connection string of Application Insights; the option also turns it on.",
        default_text="none",
        allowed="a connection string",
        flag="--appinsights_connection_string",
        metavar="STRING",
        original=False,
        environment="APPLICATIONINSIGHTS_CONNECTION_STRING",
        secret=True,
        note="The variable alone turns nothing on. A key given by an option or by `AML_APP_INSIGHTS_KEY` counts more "
        "than the one in the variable's string.",
    ),
    Setting(
        name="app_insights_endpoint",
        group="telemetry",
        kind=NON_EMPTY,
        help="Where telemetry is sent if no connection string says so. Azure sets it.",
        default="https://dc.services.visualstudio.com",
        allowed="a URL",
        environment="AML_APP_INSIGHTS_ENDPOINT",
        note="Text that is no URL counts as absent.",
    ),
    Setting(
        name="telemetry_storage",
        group="telemetry",
        kind=PATH,
        help="Folder for telemetry that cannot be sent at the moment; without it such telemetry waits in memory.",
        default_text="none",
        allowed="the path of a folder",
        flag="--telemetry_storage",
        metavar="DIR",
        original=False,
        environment="AZMLINFSRV_TELEMETRY_STORAGE",
        config_key="AZMLINFSRV_TELEMETRY_STORAGE",
        note="At most 50 MiB and 48 hours, in a folder of its own that only this user can read. It holds replies of "
        "the script unless `APP_INSIGHTS_LOG_RESPONSE_ENABLED` is off.",
    ),
    Setting(
        name="otel_sdk_disabled",
        group="telemetry",
        kind=ANY_CASE_TRUE,
        help="Whether all telemetry is off.",
        default=False,
        allowed="true or false",
        environment="OTEL_SDK_DISABLED",
    ),
    Setting(
        name="otel_bsp_schedule_delay",
        group="telemetry",
        kind=LENIENT_INTEGER,
        help="Milliseconds for which telemetry is gathered before it is sent.",
        default=5000,
        allowed="a whole number of milliseconds, 1 or more",
        minimum=1,
        maximum=_MANY_SECONDS,
        environment="OTEL_BSP_SCHEDULE_DELAY",
    ),
    Setting(
        name="requests_ca_bundle",
        group="telemetry",
        kind=PATH,
        help="Certificates in PEM form that receivers of telemetry are checked by; default: those of the system.",
        default_text="those of the system",
        allowed="the path of a file",
        environment="REQUESTS_CA_BUNDLE",
    ),
    Setting(
        name="app_insights_log_response_enabled",
        group="telemetry",
        kind=BOOLEAN,
        help="Whether telemetry includes the response.",
        default=True,
        allowed="true or false (also yes/no, on/off, 1/0)",
        environment="APP_INSIGHTS_LOG_RESPONSE_ENABLED",
        any_case=True,
        config_key="APP_INSIGHTS_LOG_RESPONSE_ENABLED",
    ),
    Setting(
        name="mdc_storage_enabled",
        group="telemetry",
        kind=BOOLEAN,
        help="Whether telemetry includes the collected model data.",
        default=False,
        allowed="true or false (also yes/no, on/off, 1/0)",
        environment="AML_MDC_STORAGE_ENABLED",
        any_case=True,
    ),
    Setting(
        name="service_name",
        group="names",
        kind=TEXT,
        help="Name of the service.",
        default="ML service",
        environment="SERVICE_NAME",
        any_case=True,
        config_key="SERVICE_NAME",
    ),
    Setting(
        name="service_version",
        group="names",
        kind=TEXT,
        help="Version of the service.",
        default="1.0",
        environment="SERVICE_VERSION",
        any_case=True,
        config_key="SERVICE_VERSION",
    ),
    Setting(
        name="service_path_prefix",
        group="names",
        kind=TEXT,
        help="Path in front of /score, as callers see it.",
        default="",
        default_text="none",
        environment="SERVICE_PATH_PREFIX",
        any_case=True,
        config_key="SERVICE_PATH_PREFIX",
    ),
    Setting(
        name="workspace_name",
        group="names",
        kind=TEXT,
        help="Name of the Azure ML workspace.",
        default="",
        default_text="none",
        environment="WORKSPACE_NAME",
        any_case=True,
        config_key="WORKSPACE_NAME",
    ),
    Setting(
        name="hostname",
        group="names",
        kind=TEXT,
        help="Name of this machine.",
        default="Unknown",
        environment="HOSTNAME",
        any_case=True,
        config_key="HOSTNAME",
    ),
)


class OtelVariable(NamedTuple):
    """A variable of OpenTelemetry; ``otlp.py`` says what its value means."""

    name: str
    default: str
    help: str
    # True if no message may show the value.
    secret: bool = False


def _otlp_variables() -> list[OtelVariable]:
    """The variables of the exporter: for all signals, and for each."""
    options = (
        (
            "ENDPOINT",
            "http://localhost:4318",
            "Where to send. For all signals: /v1/traces, /v1/logs or /v1/metrics is appended.",
        ),
        ("PROTOCOL", "http/protobuf", "Only http/protobuf is supported."),
        ("HEADERS", "", "Header fields, `name=value,name=value`, percent-encoded."),
        ("TIMEOUT", "10000", "Milliseconds that the receiver may take to answer."),
        ("COMPRESSION", "none", "gzip or none."),
        ("CERTIFICATE", "", "PEM file with the certificates that the receiver is checked by."),
        ("CLIENT_CERTIFICATE", "", "PEM file with the server's own certificate."),
        ("CLIENT_KEY", "", "PEM file with the key of the server's own certificate."),
    )
    return [
        OtelVariable(f"OTEL_EXPORTER_OTLP_{signal}{name}", default, text, secret=name == "HEADERS")
        for signal in ("", "TRACES_", "LOGS_", "METRICS_")
        for name, default, text in options
    ]


def _limit_variables() -> list[OtelVariable]:
    """The variables of the batch processors and of attributes, for spans and for log records."""
    found = [
        OtelVariable(
            "OTEL_BLRP_SCHEDULE_DELAY",
            "",
            "Milliseconds for which log records are gathered, if less than OTEL_BSP_SCHEDULE_DELAY. The shorter of the "
            "two counts for everything that is gathered.",
        )
    ]
    for processor, items in (("BSP", "spans"), ("BLRP", "log records")):
        found += [
            OtelVariable(f"OTEL_{processor}_EXPORT_TIMEOUT", "30000", f"Milliseconds that sending {items} may take."),
            OtelVariable(f"OTEL_{processor}_MAX_EXPORT_BATCH_SIZE", "512", f"Most {items} of a request."),
            OtelVariable(
                f"OTEL_{processor}_MAX_QUEUE_SIZE",
                "",
                f"Most {items} that wait; the oldest are dropped. Default: memory alone is limited.",
            ),
        ]
    found += [
        OtelVariable("OTEL_ATTRIBUTE_COUNT_LIMIT", "128", "Most attributes of a span or a log record."),
        OtelVariable("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "", "Most characters of an attribute. Default: no limit."),
    ]
    for kind, item in (("SPAN", "spans"), ("LOGRECORD", "log records")):
        found += [
            OtelVariable(f"OTEL_{kind}_ATTRIBUTE_COUNT_LIMIT", "", f"OTEL_ATTRIBUTE_COUNT_LIMIT for {item} alone."),
            OtelVariable(
                f"OTEL_{kind}_ATTRIBUTE_VALUE_LENGTH_LIMIT", "", f"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT for {item} alone."
            ),
        ]
    return found


OTEL_VARIABLES: tuple[OtelVariable, ...] = (
    *_otlp_variables(),
    OtelVariable("OTEL_TRACES_EXPORTER", "otlp", "otlp or none. Alone it turns spans on, as an endpoint does."),
    OtelVariable("OTEL_LOGS_EXPORTER", "otlp", "otlp or none. Alone it turns log records on, as an endpoint does."),
    OtelVariable(
        "OTEL_METRICS_EXPORTER",
        "otlp",
        "otlp, prometheus (which GET /metrics is anyway) or none. otlp alone turns metrics on, as an endpoint does.",
    ),
    OtelVariable(
        "OTEL_METRIC_EXPORT_INTERVAL", "60000", "Milliseconds from one time that metrics are sent to the next."
    ),
    OtelVariable("OTEL_METRIC_EXPORT_TIMEOUT", "30000", "Milliseconds that sending metrics may take."),
    OtelVariable(
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
        "cumulative",
        "cumulative: counters and histograms count from the start of the server; delta or lowmemory: since they were "
        "sent last.",
    ),
    OtelVariable("OTEL_TRACES_SAMPLER", "parentbased_always_on", "Which traces are recorded."),
    OtelVariable("OTEL_TRACES_SAMPLER_ARG", "1.0", "The share of traces, from 0 to 1, for samplers by ratio."),
    OtelVariable(
        "OTEL_PROPAGATORS",
        "tracecontext,baggage",
        "Without tracecontext each request begins a trace, also if its caller sends traceparent. The server reads no "
        "baggage.",
    ),
    *_limit_variables(),
    OtelVariable("OTEL_SERVICE_NAME", "", "Attribute service.name; default: SERVICE_NAME."),
    OtelVariable("OTEL_RESOURCE_ATTRIBUTES", "", "Further attributes, `name=value,name=value`, percent-encoded."),
)

_NO_EVENTS = "its spans have neither events nor links"
_OTHER_FORMAT = "it sends by OTLP over HTTP only"
# Variables of OpenTelemetry that mean nothing to the server, and why. Each that is given is a warning, if something is
# sent by OTLP.
OTEL_WITHOUT_EFFECT: dict[str, str] = {
    "OTEL_SPAN_EVENT_COUNT_LIMIT": _NO_EVENTS,
    "OTEL_SPAN_LINK_COUNT_LIMIT": _NO_EVENTS,
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT": _NO_EVENTS,
    "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT": _NO_EVENTS,
    "OTEL_METRICS_EXEMPLAR_FILTER": "its metrics have no exemplars",
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": "the buckets of its histograms are fixed",
    "OTEL_LOG_LEVEL": "AZUREML_LOG_LEVEL sets the level of its log",
    "OTEL_CONFIG_FILE": "it is configured by variables alone",
    "OTEL_EXPERIMENTAL_CONFIG_FILE": "it is configured by variables alone",
    "OTEL_EXPORTER_OTLP_INSECURE": "the scheme of the endpoint, http or https, says it",
    "OTEL_EXPORTER_ZIPKIN_ENDPOINT": _OTHER_FORMAT,
    "OTEL_EXPORTER_ZIPKIN_TIMEOUT": _OTHER_FORMAT,
    "OTEL_EXPORTER_PROMETHEUS_HOST": "GET /metrics is on the address of the server (--host, --metrics)",
    "OTEL_EXPORTER_PROMETHEUS_PORT": "GET /metrics is on a port of the server (--port, --health_port, --metrics)",
}
