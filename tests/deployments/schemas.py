"""Check configurations by the schemas of those who read them; a command, whose packages (see the Makefile)
are apart from those of the tests.

    python schemas.py kubernetes FILE
    python schemas.py envoy FILE
    python schemas.py cloud-run FILE
    python schemas.py cloud-run-mistakes FILE

Prints what was read as JSON, and of mistakes the keys that could be misspelt without notice.
"""

import copy
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


def fields(required=(), **properties):
    """Return the schema of an object that has no other keys."""
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def metadata(*annotations):
    """Return the schema of the metadata of an object with annotations that Cloud Run knows."""
    return fields(name=TEXT, namespace=TEXT, labels={"type": "object", "additionalProperties": TEXT},
                  annotations=fields(**dict.fromkeys(annotations, TEXT)))


def number(least, most):
    """Return the schema of an integer."""
    return {"type": "integer", "minimum": least, "maximum": most}


TEXT = {"type": "string"}
PORT = number(1, 65_535)
TIMES = {"initialDelaySeconds": number(0, 240), "timeoutSeconds": number(1, 240), "periodSeconds": number(1, 240),
         "failureThreshold": number(1, 240)}
BY_HTTP = {"httpGet": fields(["path"], path=TEXT, port=PORT), "grpc": fields(port=PORT, service=TEXT)}
CONTAINER = fields(
    ["image"], image=TEXT, name=TEXT,
    command={"type": "array", "items": TEXT}, args={"type": "array", "items": TEXT},
    env={"type": "array", "items": fields(["name"], name=TEXT, value=TEXT)},
    ports={"type": "array", "maxItems": 1,
           "items": fields(["containerPort"], name={"enum": ["http1", "h2c"]}, containerPort=PORT)},
    startupProbe=fields(tcpSocket=fields(port=PORT), **BY_HTTP, **TIMES), livenessProbe=fields(**BY_HTTP, **TIMES),
    resources=fields(limits=fields(cpu=TEXT, memory=TEXT)))
REVISION = fields(
    ["containers"], containers={"type": "array", "minItems": 1, "items": CONTAINER}, serviceAccountName=TEXT,
    containerConcurrency=number(1, 1000), timeoutSeconds=number(1, 3600))
CLOUD_RUN = fields(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "serving.knative.dev/v1"}, kind={"const": "Service"},
    metadata=metadata("run.googleapis.com/description", "run.googleapis.com/ingress", "run.googleapis.com/minScale",
                      "run.googleapis.com/maxScale"),
    spec=fields(["template"], template=fields(["spec"], spec=REVISION, metadata=metadata(
        "autoscaling.knative.dev/minScale", "autoscaling.knative.dev/maxScale", "run.googleapis.com/cpu-throttling",
        "run.googleapis.com/startup-cpu-boost", "run.googleapis.com/execution-environment"))))
"""What Cloud Run's reference has of services, but for keys that no example needs."""


def cloud_run(documents):
    """Check a service by `CLOUD_RUN`, and its containers as a pod's by Kubernetes' schema."""
    import jsonschema

    for document in documents:
        jsonschema.validate(document, CLOUD_RUN)
        containers = [{"name": "app", **container} for container in document["spec"]["template"]["spec"]["containers"]]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "app"}, "spec": {"containers": containers}}
        kubernetes([pod])
    return documents


def cloud_run_mistakes(documents):
    """Misspell each key in turn; return those that `CLOUD_RUN` does not miss."""
    import jsonschema

    (document,) = documents
    validator = jsonschema.Draft202012Validator(CLOUD_RUN)
    unnoticed = []
    for path in paths_in(document):
        wrong = copy.deepcopy(document)
        *way, key = path
        owner = wrong
        for step in way:
            owner = owner[step]
        owner[f"{key}x"] = owner.pop(key)
        if validator.is_valid(wrong):
            unnoticed.append(path)
    return unnoticed


def paths_in(value, way=()):
    """Yield the way to each key within."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if isinstance(value, dict):
            yield (*way, key)
        yield from paths_in(item, (*way, key))


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
    readers = (kubernetes, envoy, cloud_run, cloud_run_mistakes)
    reader, path = {reader.__name__.replace("_", "-"): reader for reader in readers}[sys.argv[1]], sys.argv[2]
    with open(path, encoding="utf-8") as file:
        print(json.dumps(reader(list(yaml.safe_load_all(file)))))
