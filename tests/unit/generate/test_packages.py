"""The requirements of a script: which files an image needs, and what cannot work in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from known import PLAIN

from azureml_inference_server_http.generate import rendering
from azureml_inference_server_http.generate.options import UsageError
from azureml_inference_server_http.generate.requirements import Requirements, find


def written(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_txt", ".txt").replace("_yml", ".yml")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder.resolve()


def notes(folder: Path, line: str) -> tuple[str, ...]:
    found = find(None, written(folder, requirements_txt=f"numpy\n{line}\n"), "2.0.0")
    assert found is not None
    return found.notes


def test_they_are_found_with_what_they_include(tmp_path: Path) -> None:
    app = written(tmp_path, conda_yml="dependencies: [python]\n")
    assert find(None, app, "2.0.0") == Requirements("conda.yml")
    base = "--constraint=../limits.txt  # below\n# -r nothing.txt\n"
    written(tmp_path, requirements_txt="numpy\n-r more/base.txt\n", more__base_txt=base, limits_txt="numpy<3\n")
    assert find(None, app, "2.0.0") == Requirements("requirements.txt", ("limits.txt", "more/base.txt"))
    assert find("conda.yml", app, "2.0.0") == Requirements("conda.yml")


def test_those_that_include_themselves_are_read_once(tmp_path: Path) -> None:
    app = written(tmp_path, requirements_txt="-r requirements.txt\n-r b.txt\n", b_txt="-r requirements.txt\n")
    assert find(None, app, "2.0.0") == Requirements("requirements.txt", ("b.txt",))


def test_a_file_that_a_conda_file_includes_is_copied_beside_it(tmp_path: Path) -> None:
    text = "dependencies:\n- python=3.11\n- pip:\n  - -r pip.txt\n  - scikit-learn\n"
    found = find("env/conda.yml", written(tmp_path, env__conda_yml=text, env__pip_txt="numpy\n"), "2.0.0")
    assert found == Requirements("env/conda.yml", ("env/pip.txt",))
    made = rendering.files("docker", PLAIN._replace(requirements=found))["Dockerfile"]
    assert 'COPY ["env/conda.yml", "/build/env/conda.yml"]\nCOPY ["env/pip.txt", "/build/env/pip.txt"]\n' in made
    assert "--file /build/env/conda.yml" in made


def test_a_file_outside_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"includes \.\./outside\.txt, which is no file in"):
        find(None, written(tmp_path, requirements_txt="-r ../outside.txt\n"), "2.0.0")


@pytest.mark.parametrize(
    "line",
    [
        "-e .",
        "-e ./mine",
        "--editable=mine",
        "./mine",
        "../mine",
        "/home/ada/mine",
        "dist/mine-1-py3-none-any.whl",
        "mine @ file:///home/ada/mine.whl",
        "file:mine.tar.gz",
        "--find-links ./dist",
    ],
)
def test_a_path_is_told(tmp_path: Path, line: str) -> None:
    [note] = notes(tmp_path, line)
    assert note.startswith(f"requirements.txt has `{line}`, a path that is not in the image")


@pytest.mark.parametrize(
    "line",
    [
        "numpy==2.1.0",
        "a.b[c]>=1; python_version < '3.12'",
        "mine @ https://example.com/mine-1.whl",
        "https://example.com/mine-1.tar.gz",
        "-e git+https://example.com/mine.git#egg=mine",
        "--find-links https://example.com/wheels",
        "--index-url https://example.com/simple",
    ],
)
def test_what_pip_fetches_is_not_told(tmp_path: Path, line: str) -> None:
    assert notes(tmp_path, line) == ()


@pytest.mark.parametrize(
    ("specifier", "is_told"),
    [
        ("==1.5.1", True),
        ("==1.5.*", True),
        ("~=1.4", True),
        ("~=1.4.0", True),
        ("<2", True),
        ("<=1.9", True),
        (">=2.1", True),
        ("!=2.0", True),
        (" >= 1.3, <2 ; python_version > '3'", True),
        ("[ray]==1.5.1", True),
        ("", False),
        ("[ray]", False),
        ("==2.0.0", False),
        ("==2.*", False),
        ("~=2.0", False),
        (">=1.3,<3", False),
        ("!=1.5.1", False),
        ("==2.0", False),
    ],
)
def test_another_version_of_this_package_is_told(tmp_path: Path, specifier: str, is_told: bool) -> None:
    """Users of the published server have its version in their files."""
    for name in ("azureml-inference-server-http", "AzureML_Inference.Server-HTTP"):
        found = notes(tmp_path, f"{name}{specifier}")
        assert bool(found) == is_told, found
        assert all("pip refuses both together: take the line out." in note for note in found)


def test_a_conda_file_may_have_another_version_because_it_is_replaced(tmp_path: Path) -> None:
    app = written(tmp_path, conda_yml="dependencies:\n- pip:\n  - azureml-inference-server-http==1.5.1\n")
    assert find(None, app, "2.0.0") == Requirements("conda.yml")
