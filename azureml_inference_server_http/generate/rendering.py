"""Fills the templates: the text of each file, and of what the command says about it.

Owns quoting, which differs between the formats. Templates are Jinja's, which Flask brings along. Runs in the command,
after the measurement.
"""

from __future__ import annotations

import json
import os
import posixpath
import shlex
import urllib.parse
from collections.abc import Sequence
from typing import NamedTuple

import jinja2

from ..launch.settings_table import SETTINGS
from ..replica import arguments
from . import azure, facts
from .facts import Facts
from .kinds import KINDS

_BY_VARIABLE = {setting.environment: setting for setting in SETTINGS if setting.environment}
_FOLDER = os.path.join(os.path.dirname(__file__), "templates")


def files(kind: str, known: Facts) -> dict[str, str]:
    """The texts of the files of this kind, by their paths below --out."""
    texts = {}
    for template, path in KINDS[kind].files.items():
        if path == ".dockerignore" and known.app_from_out != ".":
            # Docker reads it beside the Dockerfile if it has this name, and otherwise in the folder of the script.
            path = "Dockerfile.dockerignore"
        texts[path.format(name=known.name)] = _render(template, known)
    return texts


def next_steps(kind: str, known: Facts, out: str) -> str:
    """What a person does with the files of this kind, which are in ``out``."""
    return _render(f"{kind}/next", known, out).rstrip("\n")


def notes(kinds: Sequence[str], known: Facts) -> list[str]:
    """Sentences about what these files cannot have as it was asked for."""
    return azure.limits(known).notes if "azureml" in kinds else []


def _render(template: str, known: Facts, out: str = ".") -> str:
    return (
        _environment()
        .get_template(template)
        .render(
            known._asdict(),
            facts=known,
            azure=azure.limits(known),
            ray=for_ray(known),
            app=facts.APP,
            pre_stop=facts.PRE_STOP,
            kserve_port=facts.KSERVE_PORT,
            restart_pause=facts.RESTART_PAUSE,
            out=out,
            path=lambda name: posixpath.normpath(posixpath.join(out, name)),
        )
    )


class RayArguments(NamedTuple):
    """The settings as arguments of ``azureml_inference_server_http.ray:build``, and variables that are no settings."""

    arguments: list[tuple[str, str]]
    environment: list[tuple[str, str]]


def for_ray(known: Facts) -> RayArguments:
    """The variables of a deployment, by the names of their settings."""
    made = RayArguments([], [])
    for name, value, _ in known.deployed:
        setting = _BY_VARIABLE.get(name)
        if setting is None:
            made.environment.append((name, value))
        elif setting.name not in arguments.TAKEN:
            made.arguments.append((setting.name, value))
    return made


def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # none of the files is HTML
    )
    made.filters.update(
        yaml=quoted,
        url=urllib.parse.quote,
        exec=lambda words: json.dumps(list(words), ensure_ascii=False),
        dockerfile=in_dockerfile,
        compose=in_compose,
        kubernetes=in_kubernetes,
        unit=in_unit,
        shell=shlex.quote,
        mib=lambda size: f"{size // 1024 // 1024} MiB",
    )
    return made


# ---- Quoting. Each format replaces variables in another way, and none of them may change a value.


def quoted(value: str) -> str:
    """A text in YAML: that of JSON is valid there."""
    return json.dumps(value, ensure_ascii=False)


def in_dockerfile(value: str) -> str:
    r"""A value of ENV: \, " and $ have a meaning in quotes."""
    return '"' + "".join(f"\\{char}" if char in '\\"$' else char for char in value) + '"'


def in_compose(value: str) -> str:
    """A text in compose.yaml, where $ begins a variable."""
    return quoted(value.replace("$", "$$"))


def in_kubernetes(value: str) -> str:
    """A text of a container's environment or arguments, where $(NAME) is a variable, and $$ means $."""
    return quoted(value.replace("$", "$$"))


def in_unit(value: str) -> str:
    r"""A word of a unit (systemd.syntax(7), systemd.unit(5)): \ and " are escaped in quotes, % is doubled."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
