"""The interface as a page to read, made of the OpenAPI document: no scripts, nothing from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

router = APIRouter()


@router.get("/docs", response_class=HTMLResponse, include_in_schema=False)
async def reference(request: Request) -> Response:
    """Every route with what it takes and gives."""
    return HTMLResponse(page(request.app.openapi()))


def page(document: dict[str, Any]) -> str:
    """An OpenAPI document as HTML."""
    schemas = document.get("components", {}).get("schemas", {})
    title = f"{document['info']['title']} {document['info']['version']}"
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="stylesheet" href="static/reference.css"></head><body><main>',
        f"<h1>{escape(title)}</h1><p>{escape(document['info'].get('description', ''))} "
        'For programs: <a href="openapi.json">openapi.json</a>.</p>',
    ]
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            parts += _route(method, path, route, schemas)
    return "\n".join([*parts, "</main></body></html>"])


def _route(method: str, path: str, route: dict[str, Any], schemas: dict[str, Any]) -> Iterator[str]:
    yield f"<section><h2><code>{method.upper()} {escape(path)}</code></h2>"
    yield f"<p>{escape(route.get('description') or route.get('summary') or '')}</p>"
    if parameters := route.get("parameters"):
        yield _table((p["name"], _kind(p.get("schema", {})), p.get("description", "")) for p in parameters)
    for kind, content in route.get("requestBody", {}).get("content", {}).items():
        yield f"<h3>Takes <code>{escape(kind)}</code></h3>"
        yield from _schema(content.get("schema", {}), schemas)
    for status, answer in route.get("responses", {}).items():
        text = answer.get("description", "")
        yield f"<h3>Gives <code>{escape(status)}</code></h3><p>{escape(text)}</p>"
        for content in answer.get("content", {}).values():
            yield from _schema(content.get("schema", {}), schemas)
    yield "</section>"


def _schema(schema: dict[str, Any], schemas: dict[str, Any]) -> Iterator[str]:
    """The fields of a schema, and of those that it names."""
    waiting, seen = [schema], set()
    while waiting:
        one = waiting.pop(0)
        text = json.dumps(one)
        for name in [name for name in schemas if f'"#/components/schemas/{name}"' in text and name not in seen]:
            seen.add(name)
            waiting.append(schemas[name])
        if fields := one.get("properties"):
            needed = one.get("required", [])
            yield _table(
                (name + ("" if name in needed else " (may be left out)"), _kind(field), field.get("description", ""))
                for name, field in fields.items()
            )


def _kind(schema: dict[str, Any]) -> str:
    """The type of a value, in a few words."""
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"] if one.get("type") != "null")
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}".replace("list of any", "list")
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    return str(schema.get("format") or schema.get("type") or "any")


def _table(rows: Any) -> str:
    lines = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(kind)}</td><td>{escape(text)}</td></tr>"
        for name, kind, text in rows
    )
    return f"<table>{lines}</table>"
