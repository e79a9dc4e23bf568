"""Facts for the tests of generated files: one server with little, one with everything."""

from __future__ import annotations

from azureml_inference_server_http.generate.facts import Facts, Model, Requirements
from azureml_inference_server_http.generate.sizing import Measured, sizes
from azureml_inference_server_http.generate.variables import Variable

# Text that has a meaning in every format of the files.
NASTY = "a'b\"c $NAME ${NAME} $(NAME) %h \\n #d: {{e}} é"

PLAIN = Facts(
    name="flowers",
    image="flowers:1",
    server="2.0.0",
    python="3.11",
    wheel=None,
    folder="/home/ada/flowers",
    app_from_out=".",
    out_from_app=".",
    script="score.py",
    config_file=None,
    command=("/opt/venv/bin/azmlinfsrv",),
    host=None,
    port=5001,
    health_port=None,
    is_rest=False,
    workers=1,
    calls_at_once=1,
    serves_v2=False,
    given_model_name=None,
    shares_model=False,
    graceful=30,
    scoring_timeout_ms=None,
    model=None,
    requirements=None,
    given=(),
    secrets=(),
    measured=None,
    sizes=sizes(None, 1, False, None, 100 * 1024 * 1024),
)

MEASURED = Measured(seconds=14, mib=480, samples=3)

FULL = PLAIN._replace(
    image="registry.example.com:5000/ada/flowers:7",
    wheel="dist/azureml_inference_server_http-2.0.0-cp311-cp311-linux_x86_64.whl",
    app_from_out="..",
    out_from_app="deploy",
    script="src/score it.py",
    config_file="settings/server.json",
    host="::1",
    port=80,
    health_port=8081,
    is_rest=True,
    workers=4,
    calls_at_once=4,
    serves_v2=True,
    graceful=90,
    scoring_timeout_ms=20000,
    model=Model("/models/iris 2", in_app=False),
    requirements=Requirements("requirements.txt", ("packages/base.txt",)),
    given=(
        Variable("WORKER_COUNT", "4"),
        Variable("AML_CORS_ORIGINS", NASTY),
        Variable("SCORING_TIMEOUT_MS", "20000"),
        Variable("AZMLINFSRV_GRACEFUL_TIMEOUT", "90"),
        Variable("AZMLINFSRV_PROTOCOLS", "score,v2"),
    ),
    secrets=("APPLICATIONINSIGHTS_CONNECTION_STRING", "OTEL_EXPORTER_OTLP_HEADERS"),
    measured=MEASURED,
    sizes=sizes(MEASURED, 4, False, None, 100 * 1024 * 1024),
)

# What the two above do not show: a conda file, a model in the image, threads.
CONDA = PLAIN._replace(
    workers=2,
    calls_at_once=2,
    shares_model=True,
    model=Model("model/1", in_app=True),
    requirements=Requirements("conda.yml"),
    given=(Variable("WORKER_COUNT", "2"), Variable("AZMLINFSRV_WORKER_CLASS", "thread")),
    measured=MEASURED,
    sizes=sizes(MEASURED, 2, True, 64 * 1024 * 1024, 100 * 1024 * 1024),
)

CASES = {"plain": PLAIN, "full": FULL, "conda": CONDA}
