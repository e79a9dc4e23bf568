"""Measures the model served in three ways, and draws requests per second: ``python compare.py``.

Needs the server, make_model.py's model, and what requirements.txt lists. Each way is measured with 1
to 64 clients, which send their next request when they have the answer to the last. The ways take
turns, and the median of five rounds counts. Writes ``compare.svg`` beside this file.
"""

import contextlib
import http.client
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

FOLDER = Path(__file__).resolve().parent
PLOT = FOLDER / "compare.svg"
STYLE = {
    # Text stays text, so that the file is small.
    "svg.fonttype": "none",
    "svg.hashsalt": "compare",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.figsize": (7, 4),
    "figure.constrained_layout.use": True,
}
SECONDS = float(os.environ.get("SECONDS_EACH", "1"))
ROUNDS = 5
CLIENTS = (1, 4, 16, 64)
WAYS = {
    "one call for each request": ["--entry_script", "score.py"],
    "--max_batch_size 32": ["--entry_script", "score.py", "--max_batch_size", "32"],
    "@batched(max_size=32)": ["--entry_script", "score_batched.py"],
}


@contextlib.contextmanager
def served(options):
    """The port of a server with these options, until the end of the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "azureml_inference_server_http", *options, "--model_dir", "models/network/1"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--access_log", "off"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=FOLDER, env=environment, stdout=subprocess.DEVNULL) as server:
        try:
            while not is_ready(port):
                if server.poll() is not None:
                    raise SystemExit(f"the server has ended with {server.returncode}: {' '.join(command)}")
                time.sleep(0.1)
            yield port
        finally:
            server.terminate()


def is_ready(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def requests_per_second(port, clients, seconds):
    """Answers that this many clients get in a second."""
    chance = random.Random(1)
    body = json.dumps({"data": [[round(chance.gauss(0, 1), 3) for _ in range(64)]]})
    counts = [0] * clients
    end = time.monotonic() + seconds

    def ask(client):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while time.monotonic() < end:
            connection.request("POST", "/score", body, {"Content-Type": "application/json"})
            reply = connection.getresponse()
            answer = reply.read()
            if reply.status != 200:
                raise SystemExit(f"answered {reply.status}: {answer.decode()}")
            counts[client] += 1
        connection.close()

    threads = [threading.Thread(target=ask, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


def measure():
    """The requests per second of each way, one for each number of clients."""
    found = {name: {clients: [] for clients in CLIENTS} for name in WAYS}
    with contextlib.ExitStack() as stack:
        ports = {name: stack.enter_context(served(options)) for name, options in WAYS.items()}
        for port in ports.values():
            requests_per_second(port, CLIENTS[-1], SECONDS)  # the size of the batches grows
        for _ in range(ROUNDS):
            for clients in CLIENTS:
                for name, port in ports.items():
                    found[name][clients].append(requests_per_second(port, clients, SECONDS))
    return {name: [statistics.median(rates) for rates in each.values()] for name, each in found.items()}


def main():
    plt.rcParams.update(STYLE)
    for name, rates in measure().items():
        print(f"{name}: {', '.join(f'{rate:.0f}' for rate in rates)} requests/s")
        plt.plot([str(clients) for clients in CLIENTS], rates, marker="o", label=name)
    plt.xlabel("clients")
    plt.ylabel("requests per second")
    plt.ylim(bottom=0)
    plt.legend(frameon=False)
    plt.savefig(PLOT, metadata={"Date": None})
    print(f"Saved {PLOT}")


if __name__ == "__main__":
    main()
