"""The service in the words of OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.0)."""

from typing import Any

_NUMBER, _STRING, _BOOLEAN = {"type": "number"}, {"type": "string"}, {"type": "boolean"}
_ANY = {"type": "object"}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _or_null(kind: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [kind, {"type": "null"}]}


def _of(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


_SCHEMAS = {
    "Error": _object(error={**_STRING, "description": "the id and a sentence"}, id={**_STRING, "description": "stable"}),
    "Label": _object(label=_STRING, score={**_NUMBER, "minimum": 0, "maximum": 1}),
    "Labels": {**_list(_of("Label")), "description": "of all classes, the highest score first; the scores add up to 1"},
    "Map": _object(
        label=_STRING, score=_NUMBER, evidence=_BOOLEAN, share=_NUMBER, where=_STRING, edges=_list(_STRING),
        map={**_list(_list(_NUMBER)), "description": "rows of what each place adds to the logit"},
    ),
    "Explained": _object(
        labels=_of("Labels"), runner_up=_or_null(_STRING), unknown=_BOOLEAN, typicality=_or_null(_NUMBER),
        way=_or_null({"enum": ["class activation map", "occlusion"]}), maps=_list(_of("Map")), said=_or_null(_STRING),
        seen={**_list(_NUMBER), "description": "what the maps cover: left, top, right, bottom, as shares of the sides"},
        remarks=_list(_object(kind=_STRING, words=_STRING)), notes=_list(_STRING),
        neighbours=_list(_object(label=_STRING, similarity=_NUMBER, sha256=_STRING, picture=_or_null(_STRING))),
        width={"type": "integer"}, height={"type": "integer"}, version={"type": "integer"},
        milliseconds=_object(waited=_NUMBER, worked=_NUMBER),
    ),
    "About": _object(
        name=_STRING, version=_STRING, labels=_list(_STRING), accuracy=_or_null(_STRING), way=_STRING, unknown=_BOOLEAN,
        bytes={"type": "integer"}, pictures=_BOOLEAN,
    ),
    "Predict": {
        "type": "object",
        "description": "TensorFlow Serving's: either instances, in rows, or inputs, in columns; a picture is"
        ' {"b64": "..."} or lists of values from 0 to 255, (height, width, 3)',
        "properties": {"signature_name": {"enum": ["serving_default", "image", ""]}, "instances": _list({}), "inputs": {}},
    },
    "Predicted": {
        "type": "object",
        "description": "scores in the order of the labels in /metadata: under predictions, or under outputs",
        "properties": {"predictions": _list(_list(_NUMBER)), "outputs": _list(_list(_NUMBER))},
    },
}  # fmt: skip
_BYTES: dict[str, Any] = {}
_PICTURE = {
    "required": True,
    "description": "the bytes of a picture, or a form with one file",
    "content": {
        "image/*": {"schema": _BYTES},
        "application/octet-stream": {"schema": _BYTES},
        "multipart/form-data": {"schema": _object(image={**_STRING, "contentMediaType": "application/octet-stream"})},
    },
}
_REFUSALS = {
    "400": "the request cannot be understood",
    "403": "the request names another host, or comes from a page of another site",
    "404": "there is no such model, or not in that version",
    "408": "the request was not sent in time",
    "413": "the request, or the picture, is too large",
    "415": "the body is no picture by its type",
    "422": "the picture cannot be used",
    "500": "an internal error; its number is in the server's log",
    "503": "too many requests wait; Retry-After says when to try again",
}
_OF_PICTURE = ("400", "403", "408", "413", "415", "422", "500", "503")


def _answers(schema: dict[str, Any], *refusals: str, kind: str = "application/json") -> dict[str, Any]:
    error = {"application/json": {"schema": _of("Error")}}
    told = {status: {"description": _REFUSALS[status], "content": error} for status in refusals}
    return {"200": {"description": "the answer", "content": {kind: {"schema": schema}}}, **told}


def _get(summary: str, schema: dict[str, Any], *refusals: str, **more: Any) -> dict[str, Any]:
    return {"get": {"summary": summary, "responses": _answers(schema, "403", *refusals, **more)}}


def _query(name: str, words: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": words, "required": False, "schema": schema}


def _paths() -> dict[str, Any]:
    asked = {"required": True, "content": {"application/json": {"schema": _of("Predict")}}}
    predict_ = {"summary": "Scores, as from TensorFlow Serving", "requestBody": asked}
    predict_ |= {"responses": _answers(_of("Predicted"), "400", "403", "404", "408", "413", "500", "503")}
    name = {"name": "name", "in": "path", "required": True, "schema": _STRING}
    version = {**name, "name": "version", "schema": {"type": "integer"}}
    paths: dict[str, Any] = {
        "/label": {
            "post": {
                "summary": "The labels of a picture; the header Retrain-Unknown says whether it is unlike all of them",
                "parameters": [_query("top", "so many labels", {"type": "integer", "minimum": 1})],
                "requestBody": _PICTURE,
                "responses": _answers(_of("Labels"), *_OF_PICTURE),
            }
        },
        "/explain": {
            "post": {
                "summary": "All that is known of a picture",
                "parameters": [
                    _query("label", "a label to explain, several times for several", _STRING),
                    _query("map", "whether to say where what speaks for a label lies", {"enum": ["yes", "no"]}),
                ],
                "requestBody": _PICTURE,
                "responses": _answers(_of("Explained"), *_OF_PICTURE),
            }
        },
        "/about": _get("What is served", _of("About")),
        "/healthz": {"get": {"summary": "Whether requests are welcome", "responses": _answers(_ANY, "503")}},
        "/metrics": _get("Counts and times for Prometheus", _STRING, kind="text/plain"),
        "/openapi.json": _get("This description", _ANY),
    }
    for prefix, parameters in (("/v1/models/{name}", [name]), ("/v1/models/{name}/versions/{version}", [name, version])):
        paths[prefix] = {"parameters": parameters, **_get("Whether the model is served", _ANY, "404")}
        paths[f"{prefix}/metadata"] = {"parameters": parameters, **_get("Inputs, outputs and labels", _ANY, "404")}
        paths[f"{prefix}:predict"] = {"parameters": parameters, "post": predict_}
    return paths


def description(version: str, root_path: str) -> dict[str, Any]:
    """Return the document. `version`: of this program; `root_path`: what a proxy has in front of the addresses."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "retrain", "version": version, "description": "Says what is on a picture."},
        "servers": [{"url": root_path or "/"}],
        "paths": _paths(),
        "components": {"schemas": _SCHEMAS},
    }
