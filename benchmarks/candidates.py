"""The servers that are compared: how each is installed and how it is started. Data only.

``environments.py`` installs them, ``server.py`` starts them. Versions are exact, so that figures
can be measured again. Each runs with its own defaults; only script, port and number of worker
processes are given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

PUBLISHED = "azureml-inference-server-http==1.5.1"
GRANIAN = "granian==2.8.7"
MOSEC = "mosec==0.9.8"
# Packages that the scripts of some scenarios import. They are installed after the size of a
# candidate has been measured.
SCRIPT_REQUIREMENTS = ("inference-schema", "numpy", "pandas", "scikit-learn", "joblib")

OURS = "ours"
OURS_THREADS = "ours-threads"
OURS_WORKER_THREADS = "ours-worker-threads"
OURS_TELEMETRY = "ours-telemetry"
REFERENCE = "published"
MOSEC_TENSORS = "mosec-tensors"
CEILING = "actix"
CEILING_ONE_THREAD = "actix-1"
# Not a server: the simulated queue that the mixed scenario is compared with.
IDEAL = "ideal"


@dataclass(frozen=True)
class Candidate:
    """One server. In ``command`` and ``environment``, ``{bin}``, ``{port}``, ``{workers}`` and
    others stand for what ``server.py`` fills in."""

    key: str
    name: str
    command: tuple[str, ...]
    # Names the virtual environment; candidates with the same one share it. Empty: it needs none.
    environment_name: str = ""
    requirements: tuple[str, ...] = ()
    # True if it can serve the scripts that need SCRIPT_REQUIREMENTS.
    runs_numpy: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    health: str = "/"
    # If its --help does not show this option, the candidate is left out.
    needs_option: str = ""
    note: str = ""

    @property
    def is_bare(self) -> bool:
        """True if the candidate has neither Python nor worker processes."""
        return not self.environment_name


_OURS = ("{bin}/azmlinfsrv", "--entry_script", "{script}", "--port", "{port}", "--worker_count", "{workers}")
_ACTIX = ("{target}/release/actix-bare", "{port}", "{reply}")

_TABLE = (
    Candidate(
        OURS,
        "this server",
        _OURS,
        environment_name="ours",
        runs_numpy=True,
        note="worker processes, the default; logs every request",
    ),
    Candidate(
        OURS_THREADS,
        "this server, threads",
        (*_OURS, "--worker_class", "thread"),
        environment_name="ours",
        runs_numpy=True,
        needs_option="--worker_class",
        note="`--worker_class thread`; logs every request",
    ),
    Candidate(
        OURS_WORKER_THREADS,
        "this server, 16 threads in a worker",
        (*_OURS, "--worker_threads", "16"),
        environment_name="ours",
        needs_option="--worker_threads",
        note="`--worker_threads 16`; logs every request",
    ),
    Candidate(
        OURS_TELEMETRY,
        "this server, all telemetry",
        (*_OURS, "--log_format", "json"),
        environment_name="ours",
        environment={
            "AML_APP_INSIGHTS_ENABLED": "true",
            "AML_APP_INSIGHTS_KEY": "00000000-0000-0000-0000-000000000001",
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.1",
            "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        },
        needs_option="--log_format",
        note="Application Insights, and OTLP with a tenth of the traces, log records, and metrics each second, all to "
        "a receiver on the same machine; logs every request as JSON",
    ),
    Candidate(
        REFERENCE,
        "published 1.5.1",
        _OURS,
        environment_name="published",
        requirements=(PUBLISHED,),
        runs_numpy=True,
        note="with the gunicorn it installs; logs every request",
    ),
    Candidate(
        "published-granian",
        "1.5.1 on granian",
        (
            *("{bin}/granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port", "{port}"),
            *("--workers", "{workers}", "--blocking-threads", "1", "azureml_inference_server_http.server.entry:app"),
        ),
        environment_name="published-granian",
        requirements=(PUBLISHED, GRANIAN),
        runs_numpy=True,
        environment={"AZUREML_ENTRY_SCRIPT": "{script}"},
        note="the published application, unchanged, on granian's WSGI with `--blocking-threads 1`, as scripts are "
        "promised one call at a time; logs every request",
    ),
    Candidate(
        "granian-rsgi",
        "granian RSGI",
        (
            *("{bin}/granian", "--interface", "rsgi", "--host", "127.0.0.1", "--port", "{port}"),
            *("--workers", "{workers}", "granian_rsgi:app"),
        ),
        environment_name="granian-rsgi",
        requirements=(GRANIAN,),
        runs_numpy=True,
        environment={"PYTHONPATH": "{peers}"},
        note="the smallest application that calls the script; no log of requests",
    ),
    Candidate(
        "mosec",
        "mosec",
        ("{bin}/python", "{peers}/mosec_server.py", "--port", "{port}", "--address", "127.0.0.1"),
        environment_name="mosec",
        requirements=(MOSEC,),
        runs_numpy=True,
        note="one stage, no batching",
    ),
    Candidate(
        MOSEC_TENSORS,
        "mosec",
        ("{bin}/python", "{peers}/mosec_tensors.py", "--port", "{port}", "--address", "127.0.0.1"),
        environment_name="mosec",
        requirements=(MOSEC,),
        runs_numpy=True,
        note="the same, with tensors",
    ),
    Candidate(
        "fastapi",
        "FastAPI on uvicorn",
        (
            *("{bin}/uvicorn", "fastapi_app:app", "--host", "127.0.0.1", "--port", "{port}"),
            *("--workers", "{workers}"),
        ),
        environment_name="fastapi",
        requirements=("fastapi==0.165.0", "uvicorn[standard]==0.54.0"),
        environment={"PYTHONPATH": "{peers}"},
        note="logs every request",
    ),
    Candidate(
        "litserve",
        "LitServe",
        ("{bin}/python", "{peers}/litserve_server.py"),
        environment_name="litserve",
        requirements=("litserve==0.2.19",),
        health="/health",
        note="logs every request",
    ),
    Candidate(
        "bentoml",
        "BentoML",
        (
            *("{bin}/bentoml", "serve", "bentoml_service:Scoring", "--working-dir", "{peers}"),
            *("--host", "127.0.0.1", "--port", "{port}"),
        ),
        environment_name="bentoml",
        requirements=("bentoml==1.4.39",),
        environment={"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": "{home}"},
        health="/readyz",
        note="logs every request",
    ),
    Candidate(
        CEILING,
        "actix-web alone",
        _ACTIX,
        note="reads the body, answers with fixed bytes, after 5 ms of work where scripts do that: no Python, no log; a "
        "thread for each core",
    ),
    Candidate(CEILING_ONE_THREAD, "actix-web alone, 1 thread", (*_ACTIX, "1"), note="the same with one thread"),
)

CANDIDATES = {candidate.key: candidate for candidate in _TABLE}
# Candidates that serve any script with a plain run(), in the order of the pages.
PLAIN = (
    *(OURS, OURS_THREADS, REFERENCE, "published-granian", "granian-rsgi"),
    *("mosec", "fastapi", "litserve", "bentoml"),
)
# Candidates for the long scenarios, which use several workers each.
QUEUEING = (OURS, OURS_THREADS, REFERENCE, "granian-rsgi", "mosec", "fastapi")
# Candidates that serve scripts for this server unchanged, whatever they use of it.
WHOLE = (OURS, OURS_THREADS, REFERENCE, "published-granian")
