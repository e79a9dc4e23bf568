"""Documents for /swagger.json: generated, from schemas, from the user's files (contract section
14)."""

from __future__ import annotations

import json
import logging
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from inference_schema import schema_util
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema, output_schema

from azureml_inference_server_http.scripting import swagger

BEARER = {"type": "apiKey", "name": "Authorization", "in": "header", "description": "…"}
ERROR = {"type": "object", "properties": {"message": {"type": "string"}}}
PLAIN = {"type": "object", "example": {}}
INFO = {"title": "ML service", "description": "…", "version": "1.0"}


@pytest.fixture
def settings(tmp_path):
    return SimpleNamespace(
        app_root=str(tmp_path), service_name="ML service", service_version="1.0", service_path_prefix=""
    )


@pytest.fixture
def messages(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("azmlinfsrv"), "propagate", True)
    caplog.set_level(logging.INFO, "azmlinfsrv")
    return lambda: [(record.levelname[0], record.name, record.getMessage()) for record in caplog.records]


@pytest.fixture(autouse=True)
def no_schemas():
    for memory in (schema_util.__functions_schema__, schema_util.__versions__):
        memory.clear()


def text_script():
    return SimpleNamespace(mode="text", run=lambda data: data)


def schema_script(run):
    return SimpleNamespace(mode="schema", run=run)


def build(settings, script=None):
    documents = swagger.build(script or text_script(), settings)
    return {version: json.loads(text) for version, text in documents.items()}


def undescribed(part):
    """The document without its descriptions. Fails if one is missing or empty."""
    if isinstance(part, list):
        return [undescribed(item) for item in part]
    if not isinstance(part, dict):
        return part
    assert part.get("description", "x").strip()
    return {key: "…" if key == "description" else undescribed(value) for key, value in part.items()}


def sections(document):
    return document["definitions"] if "definitions" in document else document["components"]["schemas"]


def error(reference):
    schema = {"$ref": reference}
    if reference.startswith("#/definitions"):
        return {"description": "…", "schema": schema}
    return {"description": "…", "content": {"application/json": {"schema": schema}}}


def test_version_2(settings):
    error2 = error("#/definitions/ErrorResponse")
    expected = {
        "swagger": "2.0", "info": INFO, "schemes": ["https"], "consumes": ["application/json"],
        "produces": ["application/json"], "securityDefinitions": {"Bearer": BEARER},
        "paths": {
            "/": {"get": {
                "operationId": "ServiceHealthCheck", "description": "…", "responses": {
                    "200": {"description": "…", "schema": {"type": "string"},
                            "examples": {"application/json": "Healthy"}},
                    "default": error2}}},
            "/score": {"post": {
                "operationId": "RunMLService", "description": "…", "security": [{"Bearer": []}],
                "parameters": [{"name": "serviceInputPayload", "in": "body", "description": "…",
                                "schema": {"$ref": "#/definitions/ServiceInput"}}],
                "responses": {"200": {"description": "…", "schema": {"$ref": "#/definitions/ServiceOutput"}},
                              "default": error2}}},
            "/swagger.json": {"get": {
                "operationId": "GetSwaggerSpec", "description": "…",
                "parameters": [{"name": "version", "in": "query", "required": False, "type": "integer",
                                "enum": [2, 3]}],
                "responses": {"200": {"description": "…", "schema": {"type": "string"}}, "default": error2}}},
        },
        "definitions": {"ServiceInput": PLAIN, "ServiceOutput": PLAIN, "ErrorResponse": ERROR},
    }  # fmt: skip
    assert json.dumps(undescribed(build(settings)["2"])) == json.dumps(expected)  # key order too


def test_version_3(settings):
    error3 = error("#/components/schemas/ErrorResponse")

    def content(schema, kind="application/json"):
        return {"description": "…", "content": {kind: {"schema": schema}}}

    expected = {
        "openapi": "3.0.3", "info": INFO, "security": [{"Bearer": []}],
        "paths": {
            "/": {"get": {
                "operationId": "ServiceHealthCheck", "description": "…", "responses": {
                    "200": content({"type": "string", "example": "Healthy"}, "text/plain"), "default": error3}}},
            "/score": {"post": {
                "operationId": "RunMLService", "description": "…", "security": [{"Bearer": []}],
                "requestBody": content({"$ref": "#/components/schemas/ServiceInput"}),
                "responses": {"200": content({"$ref": "#/components/schemas/ServiceOutput"}), "default": error3}}},
            "/swagger.json": {"get": {
                "operationId": "GetSwaggerSpec", "description": "…",
                "parameters": [{"name": "version", "in": "query", "required": False,
                                "schema": {"type": "integer", "enum": [2, 3]}}],
                "responses": {"200": content({"type": "string"}, "text/plain"), "default": error3}}},
        },
        "components": {"schemas": {"ServiceInput": PLAIN, "ServiceOutput": PLAIN, "ErrorResponse": ERROR},
                       "securitySchemes": {"Bearer": BEARER}},
    }  # fmt: skip
    documents = build(settings)
    assert json.dumps(undescribed(documents["3"])) == json.dumps(expected)
    expected["openapi"] = "3.1.0"
    assert json.dumps(undescribed(documents["3.1"])) == json.dumps(expected)


def test_all_versions_in_order_and_logged(settings, messages):
    assert list(build(settings)) == ["2", "3", "3.1"]
    assert messages() == [("I", "azmlinfsrv.swagger", "Swaggers are prepared for the following versions: [2, 3, 3.1].")]


def test_schemas_of_a_decorated_run(settings):
    @input_schema("a", StandardPythonParameterType(1))
    @output_schema(NumpyParameterType(np.array([1.5])))
    def run(a, b=2, request_headers=None):
        return a

    for document in build(settings, schema_script(run)).values():
        assert sections(document)["ServiceInput"] == {
            "type": "object",
            "properties": {"a": {"type": "integer", "format": "int64"}, "b": {}, "request_headers": {}},
            "example": {"a": 1, "b": "", "request_headers": ""},
        }
        assert sections(document)["ServiceOutput"]["example"] == [1.5]


def test_side_without_decorator(settings):
    @input_schema("a", StandardPythonParameterType(1))
    def run(a):
        return a

    assert sections(build(settings, schema_script(run))["2"])["ServiceOutput"] == {"type": "object"}


def test_version_that_the_schema_cannot_have(settings, messages, tmp_path):
    @input_schema("a", StandardPythonParameterType([1, "x"]))
    def run(a):
        return a

    assert list(build(settings, schema_script(run))) == ["3", "3.1"]
    assert messages()[-1][2] == "Swaggers are prepared for versions [3, 3.1] and skipped for versions [2]."
    (tmp_path / "swagger2.json").write_text('{"mine": "é"}', encoding="utf-8")
    assert swagger.build(schema_script(run), settings)["2"] == b'{"mine": "\\u00e9"}'


def test_raw_script_that_imported_inference_schema(settings):
    script = SimpleNamespace(mode="raw", run=lambda request: 1)
    assert sections(build(settings, script)["2"])["ServiceInput"] == PLAIN


def test_inference_schema_is_not_imported(settings, monkeypatch):
    monkeypatch.delitem(sys.modules, "inference_schema.schema_util")
    assert len(build(settings, schema_script(lambda a: a))) == 3


@pytest.mark.parametrize(
    ("files", "documents", "loaded"),
    [
        ({"swagger.json": "[1]", "swagger2.json": '{"no": 1}'}, {"2": [1]}, [("2", "swagger.json")]),
        ({"swagger.json": "{}", "swagger2.json": "2"}, {"2": 2}, [("2", "swagger.json"), ("2", "swagger2.json")]),
        (
            {"swagger3.json": '"three"', "swagger3.1.json": '{"b": 1, "a": 2}'},
            {"3": "three", "3.1": {"b": 1, "a": 2}},
            [("3", "swagger3.json"), ("3.1", "swagger3.1.json")],
        ),
    ],
)
def test_own_files(settings, messages, tmp_path, files, documents, loaded):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    built = build(settings)
    assert {version: built[version] for version in documents} == documents
    assert [message for _, _, message in messages()[:-1]] == [
        f"Loaded user's swagger file for version [{version}] from {tmp_path}/{name}" for version, name in loaded
    ]


@pytest.mark.parametrize("text", ["{}", "null", "[]", "0", '""'])
def test_empty_own_file_is_as_good_as_none(settings, tmp_path, text):
    (tmp_path / "swagger3.json").write_text(text)
    assert build(settings)["3"]["openapi"] == "3.0.3"


@pytest.mark.parametrize("content", [b"{", b'{"a": "\xff"}', None])
def test_broken_own_file(settings, tmp_path, content):
    path = tmp_path / "swagger3.json"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(swagger.SwaggerError) as caught:
        swagger.build(text_script(), settings)
    assert str(path) in str(caught.value)
    assert "remove it" in str(caught.value)


@pytest.mark.parametrize(
    ("prefix", "paths"),
    [
        ("", ["/", "/score", "/swagger.json"]),
        ("a", ["/a/", "/a/score", "/a/swagger.json"]),
        ("/a b/c//", ["/a b/c/", "/a b/c/score", "/a b/c/swagger.json"]),
        ("/", ["//", "//score", "//swagger.json"]),
    ],
)
def test_path_prefix(settings, prefix, paths):
    settings.service_path_prefix = prefix
    for document in build(settings).values():
        assert list(document["paths"]) == paths


def test_names_are_taken_as_they_are(settings):
    settings.service_name, settings.service_version = 'My "best" $SERVICE_VERSION$\\n', "é"
    for document in build(settings).values():
        assert document["info"]["title"] == 'My "best" $SERVICE_VERSION$\\n'
        assert 'My "best"' in document["info"]["description"]
        assert document["info"]["version"] == "é"


def test_sample_that_is_not_json(settings, monkeypatch):
    monkeypatch.setattr(schema_util, "get_input_schema", lambda run: {"example": {1, 2}})
    with pytest.raises(swagger.SwaggerError, match=r"set.*@input_schema"):
        swagger.build(schema_script(lambda a: a), settings)
