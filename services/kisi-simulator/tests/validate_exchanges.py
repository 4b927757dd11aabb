#!/usr/bin/env python3
"""Validate recorded exchanges with Kisi against openapi.yaml, by openapi-core.

    validate_exchanges.py OPENAPI_YAML EXCHANGES_JSONL

Each line is {"request": {method, url, headers, body}, "response": {status, headers, body}}.
Every response must be one that the document describes. Every request must be one too, unless the
response refused it. Prints each violation; exits 1 on any, and when nothing was validated.
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


class Request:
    def __init__(self, recorded):
        url = urlsplit(recorded["url"])
        self.host_url = f"{url.scheme}://{url.netloc}"
        self.path = url.path
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
    parameters by one type only."""
    with open(path, encoding="utf-8") as text:
        loaded = yaml.safe_load(text)

    def rewrite(parameter):
        schema = parameter.get("schema", {})
        if isinstance(schema.get("type"), list):
            kinds = schema.pop("type")
            parameter["schema"] = {"anyOf": [{**schema, "type": kind} for kind in kinds]}

    for item in loaded["paths"].values():
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


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    openapi = OpenAPI.from_dict(document(sys.argv[1]))
    validated, violations = 0, 0
    with open(sys.argv[2], encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            exchange = json.loads(line)
            request, response = Request(exchange["request"]), Response(exchange["response"])
            status = response.status_code
            where = f"{number}: {request.method.upper()} {exchange['request']['url']} -> {status}"
            if status not in REFUSED:
                try:
                    openapi.validate_request(request)
                except Exception as error:  # every way of not fitting is a violation
                    violations += 1
                    print(f"{where}: request: {chain(error)}")
            try:
                openapi.validate_response(request, response)
            except Exception as error:
                described = "ResponseNotFound" in type(error).__name__ or "PathNotFound" in type(error).__name__ \
                    or "OperationNotFound" in type(error).__name__
                body = exchange["response"]["body"]
                envelope = isinstance(body, dict) and ("errors" in body or {"code", "error"} <= set(body))
                if not (described and status in OUTSIDE and envelope):
                    violations += 1
                    print(f"{where}: response: {chain(error)}")
            validated += 1
    print(f"{validated} exchanges validated, {violations} violations")
    sys.exit(1 if violations or not validated else 0)


if __name__ == "__main__":
    main()
