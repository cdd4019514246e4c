"""Describes Azure Machine Learning's `/score` for one model, as Swagger 2 and as OpenAPI 3.

Power BI, Excel and Azure's own pages build forms from it. Source: the templates of azureml-inference-server-http 1.5.1,
`swagger2_template.json` and `swagger3_template.json`, read 2026-11-23, for paths, operations and names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from service.signature import Dtype, Feature, Output, Signature

JSON = "application/json"
KINDS: dict[Dtype, dict[str, str]] = {
    "float64": {"type": "number", "format": "double"},
    "float32": {"type": "number", "format": "float"},
    "int64": {"type": "integer", "format": "int64"},
    "bool": {"type": "boolean"},
    "string": {"type": "string"},
    "datetime": {"type": "string", "format": "date-time"},
    "datetime-string": {"type": "string", "format": "date-time"},
}
ERROR = {"type": "object", "properties": {"message": {"type": "string"}}}


def _swagger_2(name: str, version: str, signature: Signature) -> dict[str, Any]:
    input_ref, output_ref, error_ref = (
        {"$ref": f"#/definitions/{part}"} for part in ("ServiceInput", "ServiceOutput", "ErrorResponse")
    )
    payload = {"in": "body", "name": "serviceInputPayload", "required": True, "schema": input_ref}
    failure = {"description": "What is wrong with the request", "schema": error_ref}
    return {
        "swagger": "2.0",
        "info": _info(name, version),
        "schemes": ["https", "http"],
        "consumes": [JSON],
        "produces": [JSON],
        "paths": {
            "/": {"get": _alive({"description": "The model can predict", "schema": {"type": "string"}})},
            "/score": {
                "post": {
                    **_score(),
                    "parameters": [payload],
                    "responses": {"200": {"description": "The predictions", "schema": output_ref}, "default": failure},
                }
            },
        },
        "definitions": _schemas(signature, "x-nullable"),
    }


def _openapi_3(name: str, version: str, signature: Signature) -> dict[str, Any]:
    contents = {
        part: {JSON: {"schema": {"$ref": f"#/components/schemas/{part}"}}}
        for part in ("ServiceInput", "ServiceOutput", "ErrorResponse")
    }
    failure = {"description": "What is wrong with the request", "content": contents["ErrorResponse"]}
    text = {"text/plain": {"schema": {"type": "string"}}}
    return {
        "openapi": "3.0.3",
        "info": _info(name, version),
        "paths": {
            "/": {"get": _alive({"description": "The model can predict", "content": text})},
            "/score": {
                "post": {
                    **_score(),
                    "requestBody": {"required": True, "content": contents["ServiceInput"]},
                    "responses": {
                        "200": {"description": "The predictions", "content": contents["ServiceOutput"]},
                        "default": failure,
                    },
                }
            },
        },
        "components": {"schemas": _schemas(signature, "nullable")},
    }


SWAGGERS: Mapping[str, Callable[[str, str, Signature], dict[str, Any]]] = {"2": _swagger_2, "3": _openapi_3}
"""What describes a model, by its name, version and signature; by the version of Swagger that is asked for."""


def _info(name: str, version: str) -> dict[str, str]:
    return {"title": name, "description": f"Predictions of the model {name}", "version": version}


def _alive(answer: dict[str, Any]) -> dict[str, Any]:
    return {"operationId": "ServiceHealthCheck", "responses": {"200": answer}}


def _score() -> dict[str, str]:
    return {"operationId": "RunMLService", "description": "Predict one value for each row of `data`"}


def _schemas(signature: Signature, nullable: str) -> dict[str, Any]:
    rows = {"type": "array", "minItems": 1, "items": _row(signature.features, nullable)}
    return {
        "ServiceInput": {
            "type": "object",
            "required": ["data"],
            "properties": {"data": rows},
            "example": {"data": [signature.example()]},
        },
        "ServiceOutput": {
            "type": "object",
            "properties": {"predictions": {"type": "array", "items": _prediction(signature.outputs)}},
        },
        "ErrorResponse": ERROR,
    }


def _row(features: tuple[Feature, ...], nullable: str) -> dict[str, Any]:
    required = [feature.name for feature in features if feature.required]
    return {
        "type": "object",
        **({"required": required} if required else {}),
        "properties": {feature.name: _value(feature, nullable) for feature in features},
        "additionalProperties": False,
    }


def _value(feature: Feature, nullable: str) -> dict[str, Any]:
    known = {"enum": list(feature.categories)} if feature.closed and feature.categories else {}
    return KINDS[feature.dtype] | known | ({nullable: True} if feature.takes_null else {})


def _prediction(outputs: tuple[Output, ...]) -> dict[str, Any]:
    if len(outputs) == 1:
        return dict(KINDS[outputs[0].dtype])
    kinds = {str(KINDS[output.dtype]): KINDS[output.dtype] for output in outputs}
    return {"type": "array", "items": dict(*kinds.values()) if len(kinds) == 1 else {}}
