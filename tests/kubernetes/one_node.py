"""A cluster of one node on this machine: etcd, the API server, controllers, the scheduler, containerd and a kubelet.

Owns these processes, their files and the network of the pods, a bridge of this machine. `make test-kubernetes` builds
Kubernetes 1.20; etcd, containerd, runc and the network plugins are packages of Debian. Needs root. The kernel settings
that a kubelet changes are set back at the end. There is no kube-proxy: clients of the tests follow the endpoints of
the Service as it would. Runs in the test process.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import signal
import ssl
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import TIED_TO_US, eventually
from surroundings import free_port

BRIDGE, NETWORK = "azmlk0", "10.187.44.0/24"
NODE = "node-1"
TOKEN = "token-of-tests"
PLUGINS = Path("/usr/lib/cni")
# Settings of the kernel that the kubelet and the network plugin change.
KERNEL = [Path("/proc/sys") / name for name in ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic")]
KERNEL += [Path("/proc/sys") / name for name in ("kernel/panic_on_oops", "net/ipv4/ip_forward")]
# The kubelet and containerd write these folders, wherever their own are. The pods of the tests are in "default".
LOGS = {"/var/log/pods": "default_{}_*", "/var/log/containers": "{}_default_*"}
GROUPS = Path("/sys/fs/cgroup")
# Where the API server has the pods of the tests.
PODS = "/api/v1/namespaces/default/pods"
# Seconds that anything may take on a machine that does other things too.
LONG = 300.0


class Api:
    """The API server."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._context = ssl.create_default_context()
        # It makes a certificate of its own.
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE

    def ask(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> tuple[int, Any]:
        """Status and JSON of the answer."""
        connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=LONG, context=self._context)
        fields = {"Authorization": f"Bearer {TOKEN}", "Content-Type": kind}
        with contextlib.closing(connection):
            connection.request(method, path, None if body is None else json.dumps(body), fields)
            answer = connection.getresponse()
            text = answer.read()
        return answer.status, json.loads(text) if text.startswith(b"{") else text.decode()

    def get(self, path: str) -> Any:
        status, found = self.ask("GET", path)
        assert status == 200, found
        return found

    def create(self, thing: Mapping[str, Any], dry: bool = False) -> Any:
        """Create the object, or let the server only say what it would store. Returns what it stores. The names of all
        kinds that the tests have follow one rule."""
        version, kind = thing["apiVersion"], thing["kind"].lower()
        group = f"/api/{version}" if "/" not in version else f"/apis/{version}"
        plural = f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"
        path = f"{group}/namespaces/default/{plural}{'?dryRun=All' if dry else ''}"
        status, said = self.ask("POST", path, thing)
        assert status == 201, (thing["kind"], said)
        return said

    def patch(self, path: str, change: Any) -> None:
        status, said = self.ask("PATCH", path, change, "application/strategic-merge-patch+json")
        assert status == 200, said


class Cluster:
    """Everything is started when this exists, and ended by ``stop()``."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self.folder = folder
        self._binaries = binaries
        self._processes: list[subprocess.Popen[bytes]] = []
        self._kernel = {path: path.read_text() for path in KERNEL if path.exists()}
        self._etcd, self._secure = free_port(), free_port()
        self.api = Api(self._secure)
        self.logs = folder / "logs"
        self.logs.mkdir()
        self._socket = folder / "containerd.sock"
        try:
            self._start_control_plane()
            self._start_containerd()
            self._start_kubelet()
            eventually(self._is_ready, f"the node is ready (logs: {self.logs})", LONG)
        except BaseException:
            self.stop()
            raise

    # ---- Parts

    def _start_control_plane(self) -> None:
        client, peer = f"http://127.0.0.1:{self._etcd}", f"http://127.0.0.1:{free_port()}"
        self._run(
            "etcd",
            {
                "data-dir": self.folder / "etcd",
                "listen-client-urls": client,
                "advertise-client-urls": client,
                "listen-peer-urls": peer,
                "initial-advertise-peer-urls": peer,
                "initial-cluster": f"default={peer}",
                "unsafe-no-fsync": "true",
            },
        )
        key = self.folder / "accounts.key"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        (self.folder / "tokens.csv").write_text(f"{TOKEN},admin,1,system:masters\n")
        self._run(
            self._binaries / "kube-apiserver",
            {
                "etcd-servers": client,
                "secure-port": self._secure,
                "bind-address": "127.0.0.1",
                "cert-dir": self.folder / "certificates",
                "service-cluster-ip-range": "10.187.45.0/24",
                "token-auth-file": self.folder / "tokens.csv",
                "authorization-mode": "AlwaysAllow",
                "service-account-issuer": "https://tests",
                "service-account-signing-key-file": key,
                "service-account-key-file": key,
                "disable-admission-plugins": "ServiceAccount",
            },
        )
        eventually(self._is_serving, f"the API server answers (logs: {self.logs})", LONG)
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "c", "cluster": {"server": self.address, "insecure-skip-tls-verify": True}},
            ],
            "users": [{"name": "u", "user": {"token": TOKEN}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        self._config = self.folder / "config.json"
        self._config.write_text(json.dumps(config))
        for name in ("kube-controller-manager", "kube-scheduler"):
            self._run(
                self._binaries / name,
                {
                    "kubeconfig": self._config,
                    "leader-elect": "false",
                    "port": 0,
                    "secure-port": free_port(),
                    "bind-address": "127.0.0.1",
                },
            )

    @property
    def address(self) -> str:
        return f"https://127.0.0.1:{self._secure}"

    def _start_containerd(self) -> None:
        plugins = {
            "cniVersion": "0.4.0",
            "name": "pods",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": BRIDGE,
                    "isGateway": True,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": str(self.folder / "addresses"),
                        "ranges": [[{"subnet": NETWORK}]],
                    },
                }
            ],
        }
        networks = self.folder / "networks"
        networks.mkdir()
        (networks / "pods.conflist").write_text(json.dumps(plugins))
        (self.folder / "containerd.toml").write_text(
            f"""version = 2
root = "{self.folder}/containerd"
state = "{self.folder}/containerd-state"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = "{self._socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{PLUGINS}"
    conf_dir = "{networks}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"""
        )
        self._run("containerd", {"config": self.folder / "containerd.toml"})
        eventually(lambda: self._ctr("version", check=False).returncode == 0, "containerd answers", LONG)

    def load(self, archive: Path) -> None:
        """Give the node the image of this archive."""
        self._ctr("images", "import", str(archive))

    def _ctr(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = ["ctr", "--address", str(self._socket), "--namespace", "k8s.io", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONG)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def _start_kubelet(self) -> None:
        settings = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "cgroupDriver": "cgroupfs",
            # The control groups and the firewall of this machine stay as they are.
            "cgroupsPerQOS": False,
            "enforceNodeAllocatable": [],
            "makeIPTablesUtilChains": False,
            "failSwapOn": False,
            "address": "127.0.0.1",
            "port": free_port(),
            "healthzPort": free_port(),
            "readOnlyPort": 0,
            "oomScoreAdj": 0,
            "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "resolvConf": "/dev/null",
        }
        (self.folder / "kubelet.json").write_text(json.dumps(settings))
        self._run(
            self._binaries / "kubelet",
            {
                "config": self.folder / "kubelet.json",
                "kubeconfig": self._config,
                "hostname-override": NODE,
                "root-dir": self.folder / "kubelet",
                "cert-dir": self.folder / "certificates-of-kubelet",
                "container-runtime": "remote",
                "container-runtime-endpoint": f"unix://{self._socket}",
            },
        )

    def _run(self, program: str | Path, options: Mapping[str, object]) -> None:
        """Start a program, whose log has its name."""
        words = [shutil.which(program) or str(program), *(f"--{name}={value}" for name, value in options.items())]
        with (self.logs / Path(program).name).open("wb") as log:
            process = subprocess.Popen(
                [*TIED_TO_US, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append(process)

    # ---- States

    def _is_serving(self) -> bool:
        with contextlib.suppress(OSError):
            return self.api.ask("GET", "/readyz")[0] == 200
        return False

    def _is_ready(self) -> bool:
        status, node = self.api.ask("GET", f"/api/v1/nodes/{NODE}")
        conditions = node["status"].get("conditions", []) if status == 200 else []
        return {"Ready": "True"}.items() <= {each["type"]: each["status"] for each in conditions}.items()

    def pods(self) -> list[Any]:
        """The pods of the tests that are not being deleted."""
        found: list[Any] = self.api.get(PODS)["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def ready_pods(self) -> list[Any]:
        return [
            pod
            for pod in self.pods()
            if any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", []))
        ]

    def pid_of(self, pod: Any) -> int:
        """The first process of its container, as this machine sees it."""
        container = pod["status"]["containerStatuses"][0]["containerID"].rpartition("/")[2]
        lines = self._ctr("tasks", "list").stdout.splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(container))

    # ---- The end

    def stop(self) -> None:
        """End the pods, then the parts. Set back the kernel, and remove what is outside of the folder."""
        names = self._end_pods()
        for process in reversed(self._processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._unmount()
        subprocess.run(["ip", "link", "delete", BRIDGE], capture_output=True)
        for path, text in self._kernel.items():
            path.write_text(text)
        for folder, pattern in LOGS.items():
            for path in (path for name in names for path in Path(folder).glob(pattern.format(name))):
                path.unlink() if path.is_symlink() else shutil.rmtree(path)
        for group in GROUPS.glob("*/k8s.io"):
            with contextlib.suppress(OSError):  # another containerd has containers in it
                group.rmdir()

    def _end_pods(self) -> set[str]:
        """End all pods, if need be by force. Returns their names, and those of pods that have ended before."""
        names: set[str] = set()
        with contextlib.suppress(OSError, AssertionError):
            events = self.api.get("/api/v1/namespaces/default/events")["items"]
            objects = [event["involvedObject"] for event in events]
            names = {each["name"] for each in objects if each.get("kind") == "Pod"}
            self.api.ask("DELETE", "/apis/apps/v1/namespaces/default/deployments", {"propagationPolicy": "Background"})
            self.api.ask("DELETE", PODS, {"gracePeriodSeconds": 1})
            eventually(lambda: not self.api.get(PODS)["items"], "the pods end", 60)
        with contextlib.suppress(AssertionError):
            eventually(self._has_no_task, "the containers end", 60)
        return names

    def _has_no_task(self) -> bool:
        """Kill every container that runs. containerd must see the end of each, or helpers of it would be left."""
        tasks = self._ctr("tasks", "list", check=False).stdout.splitlines()[1:]
        for line in tasks:
            self._ctr("tasks", "kill", "--signal", "SIGKILL", line.split()[0], check=False)
        return not tasks

    def _unmount(self) -> None:
        """What is mounted in the folder could not be removed. The deepest first."""
        lines = Path("/proc/self/mounts").read_text().splitlines()
        mounted = [line.split()[1] for line in lines]
        for path in sorted(mounted, key=len, reverse=True):
            if path.startswith(f"{self.folder}/"):
                subprocess.run(["umount", "--lazy", path], capture_output=True)
