"""Builds the parts of Kubernetes that ``make test-kubernetes`` runs, from Debian's source package, once.

    python tools/build_kubernetes.py FOLDER

Writes kube-apiserver, kube-controller-manager, kube-scheduler, kubelet and pause to FOLDER/bin. Takes about 7 minutes
of processor time and 3 GB of disk meanwhile; the sources and caches are removed at the end. A build that was
interrupted goes on where it was. Nothing is installed. ``missing`` says what the build and the tests need.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

from tools import debian_python

PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet")
# What builds them, runs beside them, and builds the image of the pods; and the packages of Debian that have it.
NEEDED = {
    "apt-get": "apt",
    "dpkg-source": "dpkg-dev",
    "go": "golang-go",
    "cc": "gcc",
    "etcd": "etcd-server",
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "ip": "iproute2",
    "openssl": "openssl",
    "mmdebstrap": "mmdebstrap",
    "buildah": "buildah",
    "podman": "podman",
}
GROUPS = Path("/sys/fs/cgroup/memory")
# The suite of Debian that has the source package, and where its description is when it has been fetched.
SUITE, DESCRIPTION = "bookworm", "files/kubernetes_*.dsc"
VERSION = re.compile(r"kubernetes_(?:.*\+really)?(\d+\.\d+\.\d+)[^/]*\.dsc$")
# Without the libraries of cloud providers and of Docker, which are a third of the code (Kubernetes has these tags), and
# without what debuggers need.
OPTIONS = ("-tags", "providerless,dockerless", "-gcflags", "all=-dwarf=false")


def missing() -> str:
    """Why the tests cannot run here, and the remedy if there is one. Empty if they can."""
    if os.geteuid() != 0:
        return "a kubelet needs root"
    if not GROUPS.is_dir():
        return f"Kubernetes 1.20 needs {GROUPS} (control groups 1): boot with systemd.unified_cgroup_hierarchy=0"
    absent = {package for program, package in NEEDED.items() if shutil.which(program) is None}
    return f"programs are missing: apt-get install {' '.join(sorted(absent))}" if absent else ""


def main(folder: Path) -> int:
    if reason := missing():
        print(f"A cluster cannot run here: {reason}", file=sys.stderr)
        return 1
    target, work = folder / "bin", folder / "build"
    if all((target / name).exists() for name in (*PROGRAMS, "pause")):
        return 0
    print(f"Building Kubernetes in {folder}, once: about 7 minutes of processor time.", flush=True)
    description = next(work.glob(DESCRIPTION), None)
    if description is None:
        shutil.rmtree(work, ignore_errors=True)
        try:
            debian_python.download_source(work, "kubernetes", SUITE)
        except debian_python.Missing as error:
            print(error, file=sys.stderr)
            return 1
        description = next(work.glob(DESCRIPTION))
    version = VERSION.search(description.name)
    if version is None:
        print(f"the version of Kubernetes cannot be read from {description.name}", file=sys.stderr)
        return 1
    _build(work, description, version[1], target)
    shutil.rmtree(work)
    return 0


def _build(work: Path, description: Path, version: str, target: Path) -> None:
    # In the form of before Go had modules, which its sources still have: newer releases of Go refuse their go.mod.
    tree = work / "go" / "src" / "k8s.io" / "kubernetes"
    if not tree.exists():
        tree.parent.mkdir(parents=True, exist_ok=True)
        part = tree.with_name("part")
        subprocess.run(["rm", "-rf", part], check=True)
        subprocess.run(["dpkg-source", "--no-check", "--extract", description, part], check=True)
        part.rename(tree)
    environment = {
        **os.environ,
        "GOPATH": str(work / "go"),
        "GOCACHE": str(work / "cache"),
        "GO111MODULE": "off",
        "GOFLAGS": "",
        "CGO_ENABLED": "0",
        # The compiler collects garbage less often, which saves a part of the time, and takes more memory.
        "GOGC": "400",
    }
    package = "k8s.io/kubernetes/vendor/k8s.io/component-base/version"
    major, minor, _ = version.split(".")
    names = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor}
    linked = " ".join(["-s -w", *(f"-X {package}.{name}={value}" for name, value in names.items())])
    _generate(work, tree, environment)
    target.mkdir(parents=True, exist_ok=True)
    command = ["go", "build", *OPTIONS, "-ldflags", linked, "-o", f"{target}/", *(f"./cmd/{name}" for name in PROGRAMS)]
    subprocess.run(command, cwd=tree, env=environment, check=True)
    source = tree / "build/pause/linux/pause.c"
    subprocess.run(["cc", "-Os", "-static", f"-DVERSION={version}", "-o", target / "pause", source], check=True)


def _generate(work: Path, tree: Path, environment: Mapping[str, str]) -> None:
    """Write the one file that is not in the sources: what the API server tells of its objects (OpenAPI). As Kubernetes'
    own makefile does (Makefile.generated_files), which would look into every other generated file as well."""
    package = "pkg/generated/openapi"
    if (tree / package / "zz_generated.openapi.go").exists():
        return
    generator = work / "openapi-gen"
    # With the options of the programs, which have the standard library in common.
    build = ["go", "build", *OPTIONS, "-o", generator, "./vendor/k8s.io/kube-openapi/cmd/openapi-gen"]
    subprocess.run(build, cwd=tree, env=environment, check=True)
    grep = ["grep", "-rl", "--include=*.go", "+k8s:openapi-gen=", "pkg", "cmd", "plugin", "staging/src/k8s.io"]
    found = subprocess.run(grep, cwd=tree, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    folders = {str(Path(file.replace("staging/src", "vendor")).parent) for file in found}
    others = ("vendor/k8s.io/code-generator/", "vendor/k8s.io/sample-apiserver/")
    inputs = ",".join(f"k8s.io/kubernetes/{folder}" for folder in sorted(folders) if not folder.startswith(others))
    words = ["-i", inputs, "-p", f"k8s.io/kubernetes/{package}", "-O", "zz_generated.openapi"]
    words += ["-h", "vendor/k8s.io/code-generator/hack/boilerplate.go.txt", "-r", str(work / "violations")]
    subprocess.run([generator, *words], cwd=tree, env=environment, check=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
