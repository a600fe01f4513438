"""The OpenAPI description: what every operation may answer besides what its route says."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from fieldmark.app.access import Allowed, Scope, dependants
from fieldmark.app.problems import MEDIA_TYPE, Problem

SCOPE = "x-fieldmark-scope"
"""Of an operation: what a caller's token must allow; absent where none is asked."""
_ALWAYS = {
    400: "The request cannot be read.",
    403: "The request comes from another site's page.",
    408: "The request came too slowly.",
    421: "The service does not answer to this name.",
    431: "The head of the request is too large.",
    500: "Something went wrong inside.",
    503: "Busy or not ready; try again.",
}
_GUARDED = {
    401: "No token, or an unknown one.",
    403: "The token's scope does not allow it, or the request comes from another site's page.",
    429: "Too many unknown tokens from this address.",
}
_BODIED = {413: "The body is too large.", 415: "The body is of a kind that is not taken."}
_KEY, _QUERY, _RUN = "$response.body#/keys/0", "$response.body#/query", "$response.body#/0/run"
_SNAPSHOT = {"snapshot": "$response.body#/snapshot"}
_LINKS: dict[tuple[str, str, str], tuple[tuple[str, str, dict[str, Any]], ...]] = {
    ("get", "/api/v1/table", "200"): (
        ("get", "/api/v1/photo", {"parameters": {"key": _KEY}}),
        ("get", "/api/v1/map", {"parameters": _SNAPSHOT}),
        ("get", "/api/v1/clusters", {"parameters": _SNAPSHOT}),
        ("get", "/api/v1/outliers", {"parameters": _SNAPSHOT}),
        ("get", "/api/v1/duplicates", {"parameters": _SNAPSHOT}),
        ("post", "/api/v1/search", {"requestBody": {"key": _KEY}}),
        ("post", "/api/v1/explain/photo", {"requestBody": {"key": _KEY}}),
    ),
    ("get", "/api/v1/photo", "200"): (
        (
            "get",
            "/media/{media}/{size}",
            {"parameters": {"media": "$response.body#/media", "size": "small"}},
        ),
        ("delete", "/api/v1/index/photos", {"requestBody": {"keys": ["$response.body#/key"]}}),
    ),
    ("get", "/api/v1/labels", "200"): (
        ("get", "/api/v1/species", {"parameters": {"label": "$response.body#/labels/0/name"}}),
        ("get", "/api/v1/labels/changes", {"parameters": {"since": "$response.body#/change"}}),
        ("get", "/api/v1/guesses", {"parameters": {"change": "$response.body#/change"}}),
    ),
    ("post", "/api/v1/queries", "201"): (
        ("post", "/api/v1/search", {"requestBody": {"query": _QUERY}}),
        ("post", "/api/v1/explain/photo", {"requestBody": {"query": _QUERY}}),
        ("get", "/media/{media}/{size}", {"parameters": {"media": _QUERY, "size": "medium"}}),
    ),
    ("get", "/api/v1/runs", "200"): (
        ("get", "/api/v1/runs/{run}", {"parameters": {"run": _RUN}}),
        ("get", "/api/v1/runs/{run}/metrics", {"parameters": {"run": _RUN}}),
        ("get", "/media/runs/{run}/report", {"parameters": {"run": _RUN}}),
    ),
}
"""From an answer's values to what can be asked with them: method, path and status to method, path and values."""
_PROBLEM = {"$ref": "#/components/schemas/Problem"}


_UNNAMED = str.maketrans({" ": "", "{": "", "}": ""})
"""What the name of a link may not have."""


def scope_of(route: APIRoute) -> Scope | None:
    """What a route asks of its caller."""
    return next(
        (each.call.scope for each in dependants(route) if isinstance(each.call, Allowed)), None
    )


def describe(app: FastAPI, routes: list[APIRoute], *, guarded: bool) -> dict[str, Any]:
    """The description of an application.

    Args:
        app: Whose.
        routes: Its routes.
        guarded: Whether callers need tokens.
    """
    if app.openapi_schema is not None:
        return app.openapi_schema
    told = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    schemas = told.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"] = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    problems = _problems(schemas)
    for route in routes:
        for method in route.methods or ():
            operation = told["paths"].get(route.path_format, {}).get(method.lower())
            if operation is not None:
                _complete(operation, scope_of(route), guarded=guarded, problems=problems)
    for (method, path, status), targets in _LINKS.items():
        told["paths"][path][method]["responses"][status]["links"] = {
            f"{to} {where}".replace("/", ".").translate(_UNNAMED): {
                "operationId": told["paths"][where][to]["operationId"],
                **values,
            }
            for to, where, values in targets
        }
    app.openapi_schema = told
    return told


def _problems(schemas: dict[str, Any]) -> list[dict[str, Any]]:
    """References to the schemas that say all that a problem does, and perhaps more."""
    members = set(schemas["Problem"]["properties"])
    return [
        {"$ref": f"#/components/schemas/{name}"}
        for name, schema in schemas.items()
        if members <= set(schema.get("properties", ()))
    ]


def _complete(
    operation: dict[str, Any],
    scope: Scope | None,
    *,
    guarded: bool,
    problems: list[dict[str, Any]],
) -> None:
    more = dict(_ALWAYS)
    if "requestBody" in operation:
        more |= _BODIED
    if scope is None:
        operation.pop("security", None)
    else:
        operation[SCOPE] = str(scope)
        if guarded:
            more |= _GUARDED
        else:
            # Nobody is asked for a token: then the description must not say so.
            operation.pop("security", None)
    responses = operation.setdefault("responses", {})
    if "422" in responses and "HTTPValidationError" in str(responses["422"]):
        responses["422"] = {"description": "A value cannot be used; the text says which."}
    for status, words in more.items():
        responses.setdefault(str(status), {"description": words})
    for status, response in responses.items():
        if int(status) >= 400:
            _as_problem(response, problems)


def _as_problem(response: dict[str, Any], problems: list[dict[str, Any]]) -> None:
    schema = response.get("content", {}).get("application/json", {}).get("schema", _PROBLEM)
    if all(each in problems for each in schema.get("anyOf", [schema])):
        response["content"] = {MEDIA_TYPE: {"schema": schema}}
