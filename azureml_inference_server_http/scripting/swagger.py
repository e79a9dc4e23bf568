"""The OpenAPI documents that ``/swagger.json`` serves.

Chooses between the user's own files and generated documents, and fills the templates. The front
then serves a document by its version. Schemas come from inference_schema, if the script has
imported it. Runs once, after init(), in the process that has loaded the script. Rules: contract
section 14.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .outputs import to_json

if TYPE_CHECKING:
    from ..launch.settings import Settings
    from .script import Script

VERSIONS = ("2", "3", "3.1")
# Files in the app root that replace a generated document. The first one that is not empty is used.
USER_FILES = {"2": ("swagger.json", "swagger2.json"), "3": ("swagger3.json",), "3.1": ("swagger3.1.json",)}
_TEMPLATES = {"2": "swagger2_template.json", "3": "swagger3_template.json", "3.1": "swagger3_template.json"}
_SCHEMA_VERSIONS = {"2": "2.0", "3": "3.0", "3.1": "3.1"}  # the names of the versions in inference_schema
_FOLDER = os.path.dirname(os.path.abspath(__file__))
_WORD = re.compile(r"\$SERVICE_(?:NAME|VERSION|PATH_PREFIX)\$")
_logger = logging.getLogger("azmlinfsrv.swagger")


class SwaggerError(Exception):
    """A user's swagger file cannot be served, or a schema cannot be written as JSON. The worker
    exits with 3."""


def build(script: Script, settings: Settings) -> dict[str, bytes]:
    """Make the bytes of all documents, by version, in the order of VERSIONS. Raises SwaggerError.

    A version is left out if it cannot express the script's schemas and the user has no file for it.
    Logs the versions that were made and those that were left out.
    """
    schemas = _Schemas(script)
    documents: dict[str, bytes] = {}
    for version in VERSIONS:
        document = _user_document(version, settings.app_root)
        if not document and _SCHEMA_VERSIONS[version] in schemas.versions:
            document = _generate(version, schemas, settings)
        if document:
            documents[version] = _dump(document)
    skipped = [version for version in VERSIONS if version not in documents]
    if skipped:
        _logger.info(
            "Swaggers are prepared for versions [%s] and skipped for versions [%s].", _list(documents), _list(skipped)
        )
    else:
        _logger.info("Swaggers are prepared for the following versions: [%s].", _list(documents))
    return documents


def _list(versions: Iterable[str]) -> str:
    return ", ".join(versions)


def _user_document(version: str, folder: str) -> Any:
    """The user's own document; None or an empty value if there is none. An empty document counts as
    none."""
    document = None
    for path in (os.path.join(folder, name) for name in USER_FILES[version]):
        if not document and os.path.exists(path):
            document = _read(path)
            _logger.info("Loaded user's swagger file for version [%s] from %s", version, path)
    return document


def _read(path: str) -> Any:
    try:
        with open(path, encoding="utf-8-sig") as file:
            return json.load(file)
    except (OSError, ValueError, RecursionError) as exc:
        raise SwaggerError(
            f"Cannot read swagger file {path}: {exc}. It has to be a UTF-8 file with JSON; correct it, or remove it to "
            "have the document generated."
        ) from exc


class _Schemas:
    """Input and output schema of the script's run(), and the document versions that can express
    them."""

    def __init__(self, script: Script) -> None:
        util = sys.modules.get("inference_schema.schema_util") if script.mode == "schema" else None
        if util is None:
            self.versions = tuple(_SCHEMA_VERSIONS.values())
            self.input: Any = {"type": "object", "example": {}}
            self.output: Any = {"type": "object", "example": {}}
        else:
            self.versions = tuple(util.get_supported_versions(script.run))
            self.input = util.get_input_schema(script.run)
            self.output = util.get_output_schema(script.run)


def _generate(version: str, schemas: _Schemas, settings: Settings) -> Any:
    with open(os.path.join(_FOLDER, _TEMPLATES[version]), encoding="utf-8") as file:
        template = json.load(file)
    prefix = settings.service_path_prefix
    words = {
        "$SERVICE_NAME$": settings.service_name,
        "$SERVICE_VERSION$": settings.service_version,
        "$SERVICE_PATH_PREFIX$": "/" + prefix.strip("/") if prefix else "",
    }
    document = _fill(template, words)
    if version == "3.1":
        document["openapi"] = "3.1.0"
    definitions = document["definitions"] if version == "2" else document["components"]["schemas"]
    definitions["ServiceInput"] = schemas.input
    definitions["ServiceOutput"] = schemas.output
    return document


def _fill(part: Any, words: dict[str, str]) -> Any:
    """Replace the placeholders in every string. It works on the parsed document, because a service
    name with a quote would break the JSON text."""
    if isinstance(part, dict):
        return {_fill(key, words): _fill(value, words) for key, value in part.items()}
    if isinstance(part, list):
        return [_fill(value, words) for value in part]
    return _WORD.sub(lambda word: words[word.group()], part) if isinstance(part, str) else part


def _dump(document: Any) -> bytes:
    try:
        return to_json(document)  # samples may hold numpy values and times
    except (TypeError, ValueError, RecursionError) as exc:
        raise SwaggerError(
            f"The swagger document cannot be written as JSON: {exc}. Check the samples given to @input_schema and "
            "@output_schema."
        ) from exc
