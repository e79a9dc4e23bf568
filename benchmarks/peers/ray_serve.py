"""A Ray node with two applications of Serve, for ``benchmarks/engines.py``: a scoring script with its server, and one
that does nothing. Beside them a server alone with the same script.

Runs in an environment that has Ray. Writes one line of JSON with the ports when all are ready, and ends all when its
standard input ends. Ray reads how it shall pass requests (its own proxy or HAProxy) from the environment.
"""

from __future__ import annotations

import json
import os
import socket
import sys

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
# Ray's default is too short for a machine that does other things too.
os.environ.setdefault("RAY_raylet_start_wait_time_s", "300")

import ray
from ray import serve

from azureml_inference_server_http.ray import build
from azureml_inference_server_http.testing import serve as serve_alone

# More than the connections of a measurement, so that no request waits in Serve.
ONGOING = 100


async def _nothing(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    while (await receive()).get("more_body"):
        pass
    body = b'{"ok": true}'
    fields = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": body})


class Nothing:
    """As the application of a script is, without the server."""

    def __serve_build_asgi_app__(self):
        return _nothing


def main() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = os.path.abspath(sys.argv[1])
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100_000_000)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        scored = build({"entry_script": script, "max_ongoing_requests": ONGOING, "num_cpus": 0.1})
        serve.run(scored, name="script", route_prefix="/script")
        deployment = serve.deployment(
            name="nothing", max_ongoing_requests=ONGOING, ray_actor_options={"num_cpus": 0.1}
        )(serve.ingress()(Nothing))
        serve.run(deployment.bind(), name="nothing", route_prefix="/nothing")
        with serve_alone(script) as alone:
            print(json.dumps({"serve": port, "alone": alone.port, "ray": ray.__version__}), flush=True)
            sys.stdin.read()
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
