"""Validates Kubernetes objects against the published schemas, in which a field that is not named is an error.

    python validate.py KUBERNETES_SCHEMAS VERSION < objects.yaml

KUBERNETES_SCHEMAS is the folder of Kubernetes' own schemas, of which that of VERSION is taken. Those of the Gateway API and of the Prometheus
operator are in schemas/, KServe's are the classes of its SDK. Prints the objects as a JSON list, or every mistake, and then fails.
"""

import copy
import importlib.util
import json
import re
import sys
import types
from pathlib import Path

import yaml
from jsonschema import Draft202012Validator

# The SDK's own __init__ imports KServe's model server and Kubernetes' client, which are no part of this.
package = types.ModuleType("kserve")
package.__path__ = list(importlib.util.find_spec("kserve").submodule_search_locations)
sys.modules["kserve"] = package

from kserve import models as kserve  # noqa: E402
from kserve.configuration import Configuration  # noqa: E402

FOLDER, VERSION = sys.argv[1:3]
CORE = json.loads((Path(FOLDER) / f"{VERSION}.json").read_text())
CUSTOM = Path(__file__).parent / "schemas"

# What Kubernetes' schemas leave to the server.
CORE["$defs"]["io.k8s.apimachinery.pkg.api.resource.Quantity"] = {
    "type": ["string", "number"],
    "pattern": r"^\d+(\.\d+)?(m|[kMGTPE]|[KMGTPE]i)?$",
}
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
LABEL = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")

# Maps of any keys: everywhere else a field that is not named must be a mistake.
FREE = {"annotations", "data", "labels", "limits", "matchLabels", "nodeSelector", "requests"}


class UniqueKeys(yaml.SafeLoader):
    """A second value for a key is a mistake, where YAML's own loader takes the last."""


def unique(loader, node):
    keys = [key.value for key, _ in node.value]
    twice = {key for key in keys if keys.count(key) > 1}
    if twice:
        raise yaml.constructor.ConstructorError(None, None, f"{sorted(twice)} is there twice", node.start_mark)
    return loader.construct_mapping(node, deep=True)


UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, unique)


def core_definitions():
    """Kubernetes' own kinds, by their apiVersion and kind."""
    for name, definition in CORE["$defs"].items():
        fields = definition.get("properties", {})
        versions, kinds = (fields.get(field, {}).get("enum", []) for field in ("apiVersion", "kind"))
        for version in versions:
            for kind in kinds:
                yield (version, kind), name


KINDS = dict(core_definitions())


def core_errors(name, value):
    schema = {"$ref": f"#/$defs/{name}", "$defs": CORE["$defs"]}
    return [f"{error.json_path}: {error.message}" for error in Draft202012Validator(schema).iter_errors(value)]


def strict(schema):
    """A custom resource's schema as JSON Schema in which fields that are not named are mistakes."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {
        key: {name: strict(field) for name, field in value.items()} if key == "properties" else strict(value)
        for key, value in schema.items()
    }
    if made.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
    is_open = made.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in made
    if "properties" in made and not is_open:
        made["additionalProperties"] = False
    return made


def custom_errors(path, value):
    schema = strict(json.loads(path.read_text()))
    meta = {"$ref": "#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}
    schema["properties"]["metadata"] = meta
    schema["$defs"] = CORE["$defs"]
    errors = Draft202012Validator(schema).iter_errors(value)
    return [f"{error.json_path}: {error.message}" for error in errors]


def kserve_errors(kind, value, path="$"):
    """The SDK's classes name the fields and their types, and refuse to do without those that are required."""
    if inner := re.fullmatch(r"list\[(.*)\]", kind):
        if not isinstance(value, list):
            return [f"{path}: is no list"]
        return [error for at, item in enumerate(value) for error in kserve_errors(inner[1], item, f"{path}[{at}]")]
    if inner := re.fullmatch(r"dict\(str, (.*)\)", kind):
        if not isinstance(value, dict):
            return [f"{path}: is no map"]
        return [error for key, item in value.items() for error in kserve_errors(inner[1], item, f"{path}.{key}")]
    plain = {"str": str, "int": int, "bool": bool, "float": (int, float)}.get(kind)
    if plain:
        fits = isinstance(value, plain) and (kind == "bool" or not isinstance(value, bool))
        return [] if fits else [f"{path}: {value!r} is no {kind}"]
    if not hasattr(kserve, kind):
        version, name = re.fullmatch(r"(V\d)(.*)", kind).groups()
        groups = ["io.k8s.api.core", "io.k8s.apimachinery.pkg.apis.meta", "io.k8s.api.apps"]
        names = [f"{group}.{version.lower()}.{name}" for group in groups]
        name = next(name for name in names if name in CORE["$defs"])
        return [error.replace("$", path, 1) for error in core_errors(name, value)]
    model = getattr(kserve, kind)
    if not isinstance(value, dict):
        return [f"{path}: is no object"]
    fields = {wire: model.openapi_types[field] for field, wire in model.attribute_map.items()}
    errors = [f"{path}: {field} was unexpected" for field in value if field not in fields]
    # Made without its constructor, which would refuse at once.
    blank = model.__new__(model)
    blank.local_vars_configuration = Configuration()
    for field, wire in model.attribute_map.items():
        try:
            setattr(blank, field, None)
        except ValueError:
            if wire not in value:
                errors.append(f"{path}: {wire} is required")
    for field in value.keys() & fields.keys():
        errors += kserve_errors(fields[field], value[field], f"{path}.{field}")
    return errors


def errors_of(value):
    version, kind = value.get("apiVersion"), value.get("kind")
    if (version, kind) in KINDS:
        return core_errors(KINDS[version, kind], value)
    group, _, number = version.partition("/")
    if group == "serving.kserve.io":
        return kserve_errors(number.capitalize() + kind, value)
    path = CUSTOM / f"{kind}.json"
    schema = json.loads(path.read_text()) if path.exists() else {}
    # As each schema says itself which group it is of, one of another group cannot be taken for it.
    if f"{group}/{number}" != schema.get("x-group-version"):
        return [f"no schema of {version} {kind} is known in Kubernetes {VERSION}"]
    return custom_errors(path, value)


def said_by_the_server(value):
    """What the API server checks and no schema says: the forms of names and labels."""
    if isinstance(value, list):
        for item in value:
            yield from said_by_the_server(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in ("labels", "matchLabels", "nodeSelector"):
                for label, text in item.items():
                    if not (LABEL.fullmatch(label) and LABEL_VALUE.fullmatch(str(text))):
                        yield f"{label}: {text}: is no label"
            if key == "metadata" and "name" in item and not NAME.fullmatch(item["name"]):
                yield f"{item['name']}: is no name"
            yield from said_by_the_server(item)


def maps(value, path=()):
    """The path of every map in an object."""
    if isinstance(value, dict):
        yield path
        for key, item in value.items():
            yield from maps(item, (*path, key))
    elif isinstance(value, list):
        for at, item in enumerate(value):
            yield from maps(item, (*path, at))


def lenient(value):
    """The places in which a field that nobody has heard of is not noticed: where the validation proves nothing."""
    for path in maps(value):
        changed = copy.deepcopy(value)
        place = changed
        for step in path:
            place = place[step]
        place["neverHeardOf"] = "text"
        is_free = path[-1:] and path[-1] in FREE or (value["kind"], path) == ("Service", ("spec", "selector"))
        if not is_free and not errors_of(changed):
            yield f"{'.'.join(map(str, path))}: an unknown field is not noticed"


def main():
    objects = [value for value in yaml.load_all(sys.stdin, UniqueKeys) if value is not None]
    mistakes = []
    for value in objects:
        name = f"{value['kind']} {value['metadata']['name']}"
        found = [*errors_of(value), *said_by_the_server(value), *lenient(value)]
        mistakes += [f"{name}: {mistake}" for mistake in found]
    if mistakes:
        sys.exit("\n".join(mistakes))
    json.dump(objects, sys.stdout)


main()
