"""The JSON Schema of an SDL (draft-07): what strict mode holds a file to beyond the parser, and what editors read.

It is the reference's schema, which the reference only logs, said with fewer keywords and with one change: a GPU vendor
is nvidia, amd or intel.
"""

from typing import Any, Final

Schema = dict[str, Any]


def _object(properties: Schema, *required: str, **more: Any) -> Schema:
    out: Schema = {"type": "object", "additionalProperties": False, "properties": properties}
    if required:
        out["required"] = list(required)
    return out | more


def _map(values: Schema) -> Schema:
    return {"type": "object", "additionalProperties": values}


_TEXT: Final[Schema] = {"type": "string"}
_FILLED: Final[Schema] = {"type": "string", "minLength": 1}
_TEXTS: Final[Schema] = {"type": "array", "items": _TEXT}
_TEXTS_OR_NULL: Final[Schema] = {"type": ["array", "null"], "items": _TEXT}
_PORT: Final[Schema] = {"type": "integer", "minimum": 1, "maximum": 65535}
_TRUE: Final[Schema] = {"enum": [True, "true"]}
_ZERO: Final = r"^0+(\.0+)?$"
_ABOVE_ZERO: Final[Schema] = {
    "type": ["string", "number"],
    "exclusiveMinimum": 0,
    "not": {"type": "string", "pattern": _ZERO},
}


def _upto(most: int, description: str) -> Schema:
    return {"type": "integer", "minimum": 0, "maximum": most, "description": description}


_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_CASES: Final[Schema] = {
    "type": "array",
    "items": {"type": "string", "enum": ["error", "timeout", "500", "502", "503", "504", "403", "404", "429", "off"]},
    "if": {"contains": {"const": "off"}},
    "then": {"maxItems": 1},
}
_HTTP: Final = _object(
    {
        "max_body_size": _upto(104_857_600, "Largest request body in bytes"),
        "next_cases": _CASES,
        "next_timeout": _COUNT,
        "next_tries": _COUNT,
        "proxy_buffer_size": _upto(1_048_576, "Buffer for a response's head in bytes"),
        "read_timeout": _upto(60_000, "Milliseconds"),
        "send_timeout": _upto(60_000, "Milliseconds"),
    }
)
_TO: Final = _object(
    {"global": {"type": "boolean"}, "ip": _FILLED, "service": _TEXT},
    **{
        "if": {"required": ["ip"], "properties": {"ip": _FILLED}},
        "then": {"required": ["global"], "properties": {"global": {"const": True}}},
    },
)
_EXPOSE: Final = _object(
    {
        "accept": _TEXTS,
        "as": _PORT,
        "http_options": _HTTP,
        "port": _PORT,
        "proto": {"type": "string", "enum": ["TCP", "UDP", "tcp", "udp"]},
        "to": {"type": "array", "items": _TO},
    },
    "port",
)
_CREDENTIALS: Final = _object(
    {
        "email": {"type": "string", "minLength": 5},
        "host": _FILLED,
        "password": {"type": "string", "minLength": 6},
        "username": _FILLED,
    },
    "host",
    "username",
    "password",
)
_PARAMS: Final = _object(
    {
        "storage": _map(_object({"mount": {"type": "string", "minLength": 1, "pattern": "^/"}, "readOnly": {"type": "boolean"}})),
        "permissions": _object(
            {"read": {"type": "array", "items": {"type": "string", "enum": ["deployment", "logs", "events"]}}}
        ),
        "tee": {"type": "string", "enum": ["cpu", "cpu-gpu"]},
    }
)
_SERVICE: Final = _object(
    {
        "args": _TEXTS_OR_NULL,
        "command": _TEXTS_OR_NULL,
        "credentials": _CREDENTIALS,
        "dependencies": {"type": "array", "items": _object({"service": _TEXT})},
        "env": _TEXTS_OR_NULL,
        "expose": {"type": ["array", "null"], "items": _EXPOSE},
        "image": _FILLED,
        "params": _PARAMS,
    },
    "image",
)
_STORAGE_ATTRIBUTES: Final = _object(
    {"class": _TEXT, "persistent": {"type": ["boolean", "string"]}},
    "class",
    "persistent",
    allOf=[
        {
            "if": {"required": ["class"], "properties": {"class": {"const": "ram"}}},
            "then": {"properties": {"persistent": {"not": _TRUE}}},
        },
        {
            "if": {"required": ["class"], "properties": {"class": {"enum": ["beta1", "beta2", "beta3", "default"]}}},
            "then": {"required": ["persistent"], "properties": {"persistent": _TRUE}},
        },
    ],
)
_VOLUME: Final = _object({"attributes": _STORAGE_ATTRIBUTES, "name": _TEXT, "size": _TEXT}, "size")
_MODELS: Final[Schema] = {
    "type": ["array", "null"],
    "items": _object({"interface": {"type": "string", "enum": ["pcie", "sxm"]}, "model": _TEXT, "ram": _TEXT}),
}
_GPU: Final = _object(
    {
        "attributes": _object({"vendor": _object({"nvidia": _MODELS, "amd": _MODELS, "intel": _MODELS}, minProperties=1)}),
        "units": {"type": ["string", "number"]},
    },
    allOf=[
        {"if": {"required": ["units"], "properties": {"units": _ABOVE_ZERO}}, "then": {"required": ["attributes"]}},
        {"if": {"required": ["attributes"]}, "then": {"required": ["units"], "properties": {"units": _ABOVE_ZERO}}},
    ],
)
_CPU: Final = _object(
    {
        "attributes": {"type": "object"},
        "units": {
            "type": ["string", "number"],
            "pattern": r"^[0-9]+(\.[0-9]+)?[a-zA-Z]*$",
            "exclusiveMinimum": 0,
            "not": {"type": "string", "pattern": r"^0+(\.0+)?m?$"},
        },
    },
    "units",
)
_COMPUTE: Final = _object(
    {
        "resources": _object(
            {
                "cpu": _CPU,
                "gpu": _GPU,
                "memory": _object({"size": _TEXT}, "size"),
                "storage": _VOLUME | {"type": ["object", "array"], "items": _VOLUME},
            },
            "cpu",
            "memory",
            "storage",
        )
    },
    "resources",
)
_PRICE: Final = _object(
    {
        "amount": {"type": ["string", "number"], "pattern": r"^[0-9]+(\.[0-9]+)?$", "minimum": 0},
        "denom": {"type": "string", "enum": ["uakt", "uact"]},
    },
    "denom",
    "amount",
)
_TERM: Final = {"type": "string", "pattern": "^[0-9]+(s|m|h)$", "description": "A duration. Akash ignores it."}
_PLACEMENT: Final = _object(
    {
        "attributes": {"type": "object"},
        "pricing": _map(_PRICE),
        "signedBy": _object({"allOf": _TEXTS, "anyOf": _TEXTS}),
        "gpubid": _object({"needs": _TERM, "accepts": _TERM}),
    },
    "pricing",
)

SCHEMA: Final[Schema] = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "title": "Akash SDL",
    "description": "A deployment: services, what they need, where they may run, and the most they may cost.",
} | _object(
    {
        "version": {"type": "string", "enum": ["2.0", "2.1"], "description": "Version of the SDL"},
        "include": _TEXTS,
        "services": _map(_SERVICE),
        "profiles": _object({"compute": _map(_COMPUTE), "placement": _map(_PLACEMENT)}, "compute", "placement"),
        "deployment": _map(_map(_object({"count": {"type": "integer", "minimum": 1}, "profile": _TEXT}, "profile", "count"))),
        "endpoints": {
            "type": "object",
            "additionalProperties": False,
            "patternProperties": {"^[a-z]+[-_0-9a-z]+$": _object({"kind": {"type": "string", "enum": ["ip"]}}, "kind")},
        },
        "reclamation": _object({"min_window": {"type": "string", "pattern": "^[1-9][0-9]*(s|m|h)$"}}, "min_window"),
    },
    "version",
    "services",
    "profiles",
    "deployment",
)
"""The whole schema, as a JSON-able object."""
