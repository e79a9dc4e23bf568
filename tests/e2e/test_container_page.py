"""docs/container.md and its Dockerfile: the server runs with their restrictions, and obeys probes and signals.

A process in namespaces of its own stands in for the container (``tests/containers.py``). What an engine alone does,
such as building the image, is checked as far as it can be without one: files, command, health check, numbers.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from containers import Container, Restrictions, enter, memory_group, of_docker, of_kubernetes, why_not
from harness import SCRIPTS, Background, eventually

from azureml_inference_server_http.launch.settings_table import SETTINGS

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "container.md").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "examples" / "container" / "Dockerfile").read_text(encoding="utf-8")
BUILD, RUN = re.search(r"^```bash\n(.*)\n(.*)\n```$", PAGE, re.MULTILINE).groups()
LIMITS, OPTIONS = of_docker(RUN)
POD = yaml.safe_load(re.search(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[1])["spec"]["template"]["spec"]
DEFAULTS = {setting.name: setting.default for setting in SETTINGS}
# The command may take this long to end after the graceful timeout (README.md, Settings).
END = 2

REASON = why_not()
needs_containers = pytest.mark.skipif(bool(REASON), reason=REASON)
Run = Callable[..., Container]


def instructions() -> list[tuple[str, str]]:
    lines = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE)).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line)]


def command() -> list[str]:
    """What the image runs."""
    (found,) = [json.loads(rest) for word, rest in instructions() if word == "CMD"]
    return list(found)


# ---- The numbers and files of the page


def test_docker_and_kubernetes_set_the_same_restrictions():
    assert of_kubernetes(POD) == LIMITS == Restrictions(1000, 1000, True, True, True)
    assert POD["securityContext"]["runAsNonRoot"]
    (user,) = [rest for word, rest in instructions() if word == "USER"]
    assert user == f"{LIMITS.user}:{LIMITS.group}"


def test_kill_comes_after_the_graceful_timeout():
    (container,) = POD["containers"]
    sleep, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert sleep == "sleep"
    needed = DEFAULTS["graceful_timeout"] + END
    assert POD["terminationGracePeriodSeconds"] >= int(seconds) + needed
    assert int(OPTIONS["--stop-timeout"]) >= needed


def test_the_variables_of_the_pod_leave_memory_for_the_script():
    (container,) = POD["containers"]
    variables = {each["name"]: each["value"] for each in container["env"]}
    own = {setting.environment for setting in SETTINGS}
    assert set(variables) - own == {"OMP_NUM_THREADS"}
    limits = container["resources"]["limits"]
    assert int(variables["AZMLINFSRV_MAX_BUFFERED"]) <= 2**30 * int(limits["memory"].removesuffix("Gi")) / 2
    assert int(variables["WORKER_COUNT"]) * int(variables["OMP_NUM_THREADS"]) <= int(limits["cpu"])


def test_the_build_finds_its_files():
    assert BUILD == "docker build --file examples/container/Dockerfile --tag scoring ."
    sources = [rest.split()[:-1] for word, rest in instructions() if word == "COPY" and "--from" not in rest]
    assert all((ROOT / source).exists() for words in sources for source in words)
    ports = {rest for word, rest in instructions() if word == "EXPOSE"}
    assert ports == {str(DEFAULTS["port"])} == {str(each["containerPort"]) for each in POD["containers"][0]["ports"]}
    assert OPTIONS["--publish"] == f"{DEFAULTS['port']}:{DEFAULTS['port']}"


def test_the_copied_sources_are_a_package(tmp_path: Path):
    """Cargo finds every file that the manifest names among those that the first stage copies."""
    cargo = shutil.which("cargo")
    if cargo is None:
        pytest.skip("cargo is not installed")
    for word, rest in instructions():
        *sources, target = rest.split()
        if word != "COPY" or not target.startswith("/source/"):
            continue
        for source in sources:
            if (ROOT / source).is_dir():
                ignored = shutil.ignore_patterns("*.so", "__pycache__")
                shutil.copytree(ROOT / source, tmp_path / target.removeprefix("/source/"), ignore=ignored)
            else:
                shutil.copy(ROOT / source, tmp_path)
    words = [cargo, "metadata", "--no-deps", "--offline", "--locked", "--format-version", "1"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# ---- The container


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """``run("text of the script", preparation="…")``: the image's command with this script and the page's limits."""
    with ExitStack() as stack:

        def run_one(script: str, preparation: str = "") -> Container:
            (tmp_path / "score.py").write_text(script)
            container = Container(tmp_path, command(), LIMITS, preparation)
            stack.callback(container.end)
            return container

        yield run_one


EVIDENCE = """
import errno, pathlib, tempfile

def fault(write):
    try:
        write()
    except OSError as error:
        return errno.errorcode[error.errno]

folders = [".", "/", "/tmp", "/dev/shm", "/var/tmp"]
status = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
tasks = list(pathlib.Path("/proc").glob("[0-9]*/task/*"))
zombies = [task.name for task in tasks if "State:\\tZ" in (task / "status").read_text()]
answer = {
    "written": [folder for folder in folders if fault((pathlib.Path(folder) / "azt").touch) is None],
    "temporary": fault(tempfile.gettempdir),
    "ids": [os.getuid(), os.getgid(), os.getppid()],
    "no_new_privileges": status["NoNewPrivs"].strip(),
    "tasks": len(tasks),
    "zombies": zombies,
}
"""


@needs_containers
def test_the_server_runs_within_the_restrictions(run: Run):
    server = run((SCRIPTS / "obey.py").read_text()).wait_until_ready()
    found = server.score(EVIDENCE).json()
    assert found["written"] == []
    assert found["temporary"] == "ENOENT"
    assert found["ids"] == [LIMITS.user, LIMITS.group, 1]
    assert found["no_new_privileges"] == "1"
    assert found["tasks"] < int(OPTIONS["--pids-limit"]) / 2
    assert server.score("answer = 1" + " " * (1 << 20)).status == 200


@needs_containers
def test_pid_1_reaps_orphans_of_the_script(run: Run):
    server = run((SCRIPTS / "obey.py").read_text()).wait_until_ready()
    leave_an_orphan = "import subprocess\nsubprocess.run(['sh', '-c', 'true & exec sh -c true &'])"
    for _ in range(3):
        assert server.score(leave_an_orphan).json() == "done"
    eventually(lambda: server.score(EVIDENCE).json()["zombies"] == [], "no zombie is left")


@needs_containers
def test_the_health_check_of_the_image(run: Run):
    (check,) = [rest for word, rest in instructions() if word == "HEALTHCHECK"]
    python, *words = json.loads(re.search(r"CMD (\[.*\])", check)[1])
    assert python == "python"
    server = run(
        "import os, time\ndef init():\n    while not os.path.exists('go'): time.sleep(0.005)\ndef run(data): pass\n"
    )
    asked = [sys.executable, *(word.replace(f":{DEFAULTS['port']}/", f":{server.port}/") for word in words)]
    eventually(lambda: server.get("/livez").status == 200, "the front serves")
    assert subprocess.run(asked, capture_output=True).returncode == 1
    (server.folder / "go").touch()
    server.wait_until_ready()
    assert subprocess.run(asked, capture_output=True).returncode == 0


GATED = """
import os, time

def wait_for(name):
    while not os.path.exists(name):
        time.sleep(0.005)

def init():
    wait_for("init")

def run(data):
    print("begun", data)
    wait_for("run")
    return data
"""


def asked(server: Container, probe: str) -> int:
    (container,) = POD["containers"]
    assert container[probe]["httpGet"]["port"] == DEFAULTS["port"]
    return server.get(container[probe]["httpGet"]["path"]).status


@needs_containers
def test_probes_and_the_stop(run: Run):
    server = run(GATED)
    eventually(lambda: asked(server, "livenessProbe") == 200, "the front serves")
    assert asked(server, "readinessProbe") == 503
    (server.folder / "init").touch()
    server.wait_until_ready()
    running = Background(lambda: server.score("a"))
    eventually(lambda: "begun a" in server.log(), "the request runs")
    assert asked(server, "livenessProbe") == asked(server, "readinessProbe") == 200
    server.signal(signal.SIGTERM)
    eventually(lambda: asked(server, "readinessProbe") == 503, "the server is not ready after TERM")
    assert asked(server, "livenessProbe") == 200
    (server.folder / "run").touch()
    assert running.result().text == '"a"'
    assert server.wait_for_exit() == 0


@needs_containers
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])
def test_pid_1_obeys_signals_while_init_runs(run: Run, number: signal.Signals):
    server = run(GATED)
    eventually(lambda: asked(server, "livenessProbe") == 200, "the front serves")
    server.signal(number)
    if number == signal.SIGTERM:
        (server.folder / "init").touch()
    assert server.wait_for_exit() == 0


@needs_containers
def test_hup_loads_the_script_again(run: Run):
    server = run("def init(): pass\ndef run(data): return 1\n").wait_until_ready()
    (server.folder / "score.py").write_text("def init(): pass\ndef run(data): return 22\n")
    server.signal(signal.SIGHUP)
    eventually(lambda: server.score().text == "22", "the new script is served")


@needs_containers
def test_what_exceeds_the_memory_limit_costs_one_request(run: Run):
    with memory_group(256 << 20) as group:
        if group is None:
            pytest.skip("no control group for memory can be made")
        script = (SCRIPTS / "obey.py").read_text()
        server = run(script, preparation=enter(group)).wait_until_ready()
        lost = server.score("answer = len(bytearray(b'x') * (512 << 20))")
        assert lost.status == 500
        assert "was killed by signal 9 (SIGKILL)" in lost.json()["message"]
        eventually(lambda: server.score().status == 200, "another worker serves")
        restarts = 'azmlinfsrv_worker_restarts_total{reason="oom"} 1\n'
        eventually(lambda: restarts in server.get("/metrics").text, "the restart counts")
