"""Check configurations by the schemas of those who read them; a command, whose packages (see the Makefile)
are apart from those of the tests.

    python schemas.py kubernetes FILE
    python schemas.py envoy FILE
    python schemas.py yaml FILE

Prints what was read as JSON.
"""

import importlib
import json
import pkgutil
import sys

import yaml


def kubernetes(documents):
    """Check manifests by the schemas of the newest version; no field may be unknown."""
    import kubernetes_validate

    for document in documents:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    return documents


def envoy(documents):
    """Parse a bootstrap configuration as Envoy does: by its protocol buffers."""
    from envoy.config.bootstrap.v3.bootstrap_pb2 import Bootstrap
    from google.protobuf import json_format

    (document,) = documents
    for name in set(types_in(document)):
        package = importlib.import_module(name.rpartition(".")[0])
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    message = json_format.ParseDict(document, Bootstrap())
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def types_in(value):
    """Yield the names of the types that are given within."""
    if isinstance(value, dict):
        if "@type" in value:
            yield value["@type"].rpartition("/")[2]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from types_in(item)


if __name__ == "__main__":
    reader, path = {"kubernetes": kubernetes, "envoy": envoy, "yaml": list}[sys.argv[1]], sys.argv[2]
    with open(path, encoding="utf-8") as file:
        print(json.dumps(reader(list(yaml.safe_load_all(file)))))
