"""The flex template's spec: the image, and every launch option of the contract as a parameter with help and rule.

python -m pipeline.image.template --image LOCATION-docker.pkg.dev/PROJECT/REPOSITORY/NAME@sha256:…
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from typing import Any

from contract.options import OPTIONS, Option

NAME = "audit-stream-job"
_DESCRIPTION = "Carries every change of Spanner change streams, masked and enriched, into BigQuery."


def spec(image: str, environment: Mapping[str, str | int] | None = None) -> dict[str, Any]:
    """The spec as Dataflow reads it from a bucket (ContainerSpec). Workers run in the launcher's image.

    `environment` is what a launch takes where it says nothing else (FlexTemplateRuntimeEnvironment): workers, buckets.
    Raises ValueError for an image that is not named by its digest: a tag can be moved under a running job.
    """
    if not re.search(r"@sha256:[0-9a-f]{64}$", image):
        raise ValueError(
            f"the image must be named by its digest (…@sha256:…), got {image!r}. "
            "The push prints it, and so does `gcloud artifacts docker images describe`."
        )
    return {
        "image": image,
        "sdkInfo": {"language": "PYTHON"},
        "metadata": {
            "name": NAME,
            "description": _DESCRIPTION,
            "streaming": True,
            "supportsExactlyOnce": True,
            "supportsAtLeastOnce": True,
            "defaultStreamingMode": "EXACTLY_ONCE",
            "parameters": [_parameter(option) for option in OPTIONS],
        },
        "defaultEnvironment": {"sdkContainerImage": image, "enableStreamingEngine": True, **(environment or {})},
    }


def text(image: str, environment: Mapping[str, str | int] | None = None) -> str:
    """The spec as the file in the bucket: the same text for the same image, environment and contract."""
    return json.dumps(spec(image, environment), indent=1) + "\n"


def _parameter(option: Option) -> dict[str, Any]:
    parameter: dict[str, Any] = {
        "name": option.name,
        "label": _label(option.name),
        "helpText": option.help,
        "paramType": "TEXT",
        "isOptional": not option.required,
    }
    if option.regex:
        parameter["regexes"] = [_posix(option.regex)]
    if option.default:
        parameter["defaultValue"] = option.default
    return parameter


def _label(name: str) -> str:
    """`dlqRetryMinutes` as people read it: `Dlq retry minutes`."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower().replace("big query", "BigQuery")
    return words[0].upper() + words[1:]


def _posix(regex: str) -> str:
    r"""An option's regex in POSIX's extended syntax, which Dataflow checks with: no `\d`, no empty alternative."""
    optional = regex.startswith("|")
    body = regex.removeprefix("|").replace(r"\d", "[0-9]")
    return f"^({body}){'?' if optional else ''}$"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="pipeline.image.template", description="Prints the flex template's spec.")
    parser.add_argument("--image", required=True, help="The image by its digest.")
    try:
        sys.stdout.write(text(parser.parse_args(argv).image))
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
