"""Read an InferenceService as JSON by KServe's own classes and write what they know of it: stdin to stdout."""

import json
import re
import sys
from typing import Any

import kserve.models
import kubernetes.client.models


def known(data: Any, kind: str) -> Any:
    """Return ``data`` without the fields that the class ``kind`` does not have; raise where one has a wrong type.

    KServe's classes name those of their fields, which are its own, Kubernetes' or Python's.
    """
    if part := re.fullmatch(r"list\[(.+)\]", kind):
        return [known(each, part[1]) for each in data]
    if part := re.fullmatch(r"dict\(str, (.+)\)", kind):
        return {key: known(value, part[1]) for key, value in data.items()}
    if ours := getattr(kserve.models, kind, None):
        names = {name: attribute for attribute, name in ours.attribute_map.items() if name in data}
        fields = {name: known(data[name], ours.openapi_types[attribute]) for name, attribute in names.items()}
        ours(**{attribute: fields[name] for name, attribute in names.items()})  # it checks what must not be missing
        return fields
    if theirs := getattr(kubernetes.client.models, kind, None):
        return json.loads(theirs.from_dict(data).to_json())
    assert type(data).__name__ == kind, f"{data!r} is not of type {kind}"
    return data


if __name__ == "__main__":
    json.dump(known(json.load(sys.stdin), "V1beta1InferenceService"), sys.stdout)
