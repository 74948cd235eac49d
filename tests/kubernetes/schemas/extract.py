"""Takes the schema of one version out of a CustomResourceDefinition and writes it as JSON, without what the tests do not look at.

    python3 extract.py CRD.yaml VERSION > KIND.json

Left out are the descriptions, the status, and CEL rules, which jsonschema cannot evaluate.
"""

import json
import sys

import yaml

LEFT_OUT = {"description", "x-kubernetes-validations", "default"}


def bare(schema):
    if isinstance(schema, list):
        return [bare(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    # Under `properties` the keys are the fields' names, of which one may be called as a keyword is.
    return {
        key: {name: bare(field) for name, field in value.items()} if key == "properties" else bare(value)
        for key, value in schema.items()
        if key not in LEFT_OUT
    }


definition = yaml.safe_load(open(sys.argv[1]))
version = next(version for version in definition["spec"]["versions"] if version["name"] == sys.argv[2])
schema = bare(version["schema"]["openAPIV3Schema"])
schema["properties"].pop("status", None)
# For whoever looks a schema up by its kind.
schema["x-group-version"] = f"{definition['spec']['group']}/{version['name']}"
json.dump(schema, sys.stdout, sort_keys=True, separators=(",", ":"))
print()
