#!/usr/bin/env python3
"""Validate recorded exchanges with Kisi against openapi.yaml, by openapi-core.

    validate_exchanges.py OPENAPI_YAML EXCHANGES_JSONL

Each line is {"request": {method, url, headers, body}, "response": {status, headers, body}}.
Every response must be one that the document describes. Every request must be one too, unless the
response refused it. Prints each violation; exits 1 on any, and when nothing was validated.

openapi-core leaves four things open that are closed here: query parameters that the document does
not have, a body after 204, a described header that is not there, and a request that was accepted
without a credential. A refusal with a status that the document does not list for the operation,
such as 400 for a parameter, is let through when it has the envelope of its status, and counted.
"""
import json
import sys
from urllib.parse import parse_qsl, urlsplit

import yaml
from openapi_core import OpenAPI
from openapi_core.datatypes import RequestParameters
from werkzeug.datastructures import Headers, ImmutableMultiDict

# Answers that say that the request was not what the document asks for, or was not looked at.
REFUSED = {400, 401, 404, 405, 415, 422, 429}
# Answers to what the document does not describe: an unknown route, another method, a bad parameter.
OUTSIDE = {400, 404, 405, 422, 500, 502, 503}


# Described everywhere, sent only when something is to be removed.
SOMETIMES = {"deprecation", "sunset"}


class Request:
    def __init__(self, recorded):
        url = urlsplit(recorded["url"])
        self.host_url = f"{url.scheme}://{url.netloc}"
        self.path = url.path
        self.query = [name for name, _ in parse_qsl(url.query, keep_blank_values=True)]
        self.method = recorded["method"].lower()
        headers = Headers(recorded["headers"])
        # The secret is not recorded; its scheme is.
        self.parameters = RequestParameters(
            query=ImmutableMultiDict(parse_qsl(url.query, keep_blank_values=True)),
            header=headers,
        )
        self.content_type = headers.get("content-type", "application/json").lower()
        body = recorded["body"]
        self.body = None if body is None else json.dumps(body).encode()


class Response:
    def __init__(self, recorded):
        self.status_code = recorded["status"]
        self.headers = Headers(recorded["headers"])
        self.content_type = self.headers.get("content-type", "application/json").lower()
        body = recorded["body"]
        self.data = b"" if body is None else json.dumps(body).encode()


def document(path):
    """The document, with `type: [a, b]` of parameters written as `anyOf`: openapi-core casts
    parameters by one type only. And without OAuth 2, which it takes for granted when it is an
    alternative, so that a request without any credential would fit."""
    with open(path, encoding="utf-8") as text:
        loaded = yaml.safe_load(text)

    def rewrite(parameter):
        schema = parameter.get("schema", {})
        if isinstance(schema.get("type"), list):
            kinds = schema.pop("type")
            parameter["schema"] = {"anyOf": [{**schema, "type": kind} for kind in kinds]}

    def without_oauth(holder):
        if "security" in holder:
            holder["security"] = [way for way in holder["security"] if "OAuth2" not in way]

    without_oauth(loaded)
    for item in loaded["paths"].values():
        for value in item.values():
            without_oauth(value if isinstance(value, dict) else {})
        for holder in [item, *(value for value in item.values() if isinstance(value, dict))]:
            for parameter in holder.get("parameters", []):
                rewrite(parameter)
    for parameter in loaded["components"].get("parameters", {}).values():
        rewrite(parameter)
    return loaded


def chain(error):
    texts = []
    while error is not None:
        texts.append(str(error) or type(error).__name__)
        for detail in getattr(error, "schema_errors", None) or []:
            where = "/".join(str(part) for part in detail.absolute_path)
            texts.append(f"{where}: {detail.message}"[:400])
        error = error.__cause__
    return " <- ".join(texts)


def resolved(loaded, value):
    while "$ref" in value:
        found = loaded
        for part in value["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        value = found
    return value


def operation_of(loaded, request):
    """The path item and operation that the request is for, or None outside of the document."""
    parts = request.path.strip("/").split("/")
    for path, item in loaded["paths"].items():
        words = path.strip("/").split("/")
        fits = len(words) == len(parts) and all(
            word == part or (word.startswith("{") and (part.isdigit() or words[0] == "roles"))
            for word, part in zip(words, parts)
        )
        if fits and request.method in item:
            return item, item[request.method]
    return None


def left_open(loaded, request, response, accepted):
    """What openapi-core does not look at."""
    found = operation_of(loaded, request)
    if response.status_code == 204 and response.data:
        yield "response: a body after 204"
    if not found:
        return
    item, operation = found
    parameters = [
        resolved(loaded, parameter)
        for parameter in [*item.get("parameters", []), *operation.get("parameters", [])]
    ]
    known = {parameter["name"] for parameter in parameters if parameter["in"] == "query"}
    for name in request.query if accepted else []:
        if name not in known:
            yield f"request: no parameter {name}"
    described = operation["responses"].get(str(response.status_code))
    for name in resolved(loaded, described).get("headers", {}) if described else []:
        if name.lower() not in SOMETIMES and name not in response.headers:
            yield f"response: no header {name}"


def has_envelope(response):
    try:
        body = json.loads(response.data)
    except ValueError:
        return False
    wanted = {"errors"} if response.status_code == 422 else {"code", "error"}
    return isinstance(body, dict) and set(body) == wanted


def is_outside(error):
    names = {"ResponseNotFound", "PathNotFound", "OperationNotFound"}
    return any(kind.__name__ in names for kind in type(error).__mro__)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    loaded = document(sys.argv[1])
    openapi = OpenAPI.from_dict(loaded)
    validated, violations, outside = 0, 0, 0
    with open(sys.argv[2], encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            exchange = json.loads(line)
            request, response = Request(exchange["request"]), Response(exchange["response"])
            status = response.status_code
            accepted = status not in REFUSED
            found = list(left_open(loaded, request, response, accepted))
            if accepted:
                try:
                    openapi.validate_request(request)
                except Exception as error:  # every way of not fitting is a violation
                    found.append(f"request: {chain(error)}")
            try:
                openapi.validate_response(request, response)
            except Exception as error:
                if is_outside(error) and status in OUTSIDE and has_envelope(response):
                    outside += 1
                else:
                    found.append(f"response: {chain(error)}")
            for violation in found:
                print(f"{number}: {request.method.upper()} {exchange['request']['url']} -> {status}: {violation}")
            violations += len(found)
            validated += 1
    print(f"{validated} exchanges validated ({outside} refused beyond the document), {violations} violations")
    sys.exit(1 if violations or not validated else 0)


if __name__ == "__main__":
    main()
