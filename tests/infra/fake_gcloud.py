#!/usr/bin/env python3
"""A gcloud that keeps what it was asked to make in a file, and refuses as Google would.

It stands in since tests have no Google Cloud project, and bootstrap's promises are about a project's state: what is
there is left alone, and a thing is made after what it needs. It knows bootstrap's commands, and fails at others.
Its file is in $FAKE_GCLOUD: `things` by name, `policies` by name, `changes` as they were requested; `late`, how many
grants are refused since Google does not know a new account yet; `refused`, a role with a permission that there is not.
"""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

NUMBER = "123456789012"


def main(arguments: list[str]) -> int:
    file = Path(os.environ["FAKE_GCLOUD"])
    state = (
        json.loads(file.read_text()) if file.exists() else {"things": {}, "policies": {}, "changes": [], "calls": []}
    )
    words = [word for word in arguments if not word.startswith("--")]
    flags = dict(flag(word) for word in arguments if word.startswith("--"))
    state["calls"].append(arguments)
    before = json.dumps([state["things"], state["policies"]])
    answer, code = Project(state).run(words, flags)
    if json.dumps([state["things"], state["policies"]]) != before:
        state["changes"].append(arguments)
    file.write_text(json.dumps(state))
    print(answer, file=sys.stderr if code else sys.stdout)
    return code


def flag(word: str) -> tuple[str, str]:
    found = re.fullmatch(r"--([\w-]+)=?(.*)", word, re.S)
    assert found, word
    return found[1], found[2]


class Project:
    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state
        self.things: dict[str, dict[str, str]] = state["things"]
        self.policies: dict[str, dict[str, Any]] = state["policies"]

    def run(self, words: list[str], flags: dict[str, str]) -> tuple[str, int]:
        match words:
            case ["projects", "describe", _]:
                return NUMBER, 0
            case ["services", "list"]:
                return "\n".join(n.removeprefix("service ") for n in self.things if n.startswith("service ")), 0
            case ["services", "enable", *services]:
                self.things |= {f"service {service}": flags for service in services}
                return "", 0
            case ["storage", "service-agent"] | ["beta", "services", "identity", "create"]:
                return "agent@iam.gserviceaccount.com", 0
            case ["storage", "buckets", "update", name]:
                self.things[f"buckets {name}"]["versioning"] = ""
                return "", 0
            case ["iam", "roles", "update", name]:
                role = self.things[f"roles {name}"]
                role["permissions"] = ",".join({*role["permissions"].split(","), *flags["add-permissions"].split(",")})
                return "", 0
            case [*kind, "get-iam-policy", name]:
                return json.dumps(self.policies.get(f"{' '.join(kind)} {name}", {"etag": "none yet"})), 0
            case [*kind, "add-iam-policy-binding", name]:
                return self.grant(kind, name, flags)
            case [*_, kind, "describe", name]:
                return self.describe(f"{kind} {name.partition('@')[0]}", flags)
            case ["iam", "roles", "create", name] if name == self.state.get("refused"):
                return "INVALID_ARGUMENT: Permission of.nobody is not valid.", 1
            case [*_, kind, "create", name]:
                return self.make(f"{kind} {name}", flags)
        return f"unknown command: {words}", 2

    def describe(self, thing: str, flags: dict[str, str]) -> tuple[str, int]:
        if thing not in self.things:
            return f"NOT_FOUND: {thing}", 1
        if "versioning_enabled" in flags.get("format", ""):
            return ("True" if "versioning" in self.things[thing] else ""), 0
        if "includedPermissions" in flags.get("format", ""):
            return ";".join(sorted(self.things[thing]["permissions"].split(","))), 0
        return thing, 0

    def make(self, thing: str, flags: dict[str, str]) -> tuple[str, int]:
        if thing in self.things:
            return f"ALREADY_EXISTS: {thing}", 1
        if missing := self.needs(thing, flags):
            return f"FAILED_PRECONDITION: {thing} needs {missing}", 1
        self.things[thing] = flags
        return "", 0

    def needs(self, thing: str, flags: dict[str, str]) -> str | None:
        """What is not there yet, of what Google asks for."""
        if not thing.startswith("service ") and not any(name.startswith("service ") for name in self.things):
            return "its API"
        if "keyring" in flags and f"keyrings {flags['keyring']}" not in self.things:
            return "its key ring"
        key = flags.get("default-encryption-key") or flags.get("kms-key")
        kind = thing.partition(" ")[0]
        agent = {"buckets": "gs-project-accounts", "repositories": "gcp-sa-artifactregistry"}.get(kind)
        if key and agent:
            bindings = self.policies.get(f"kms keys {key.rpartition('/')[2]}", {}).get("bindings", [])
            if not any(agent in member for binding in bindings for member in binding["members"]):
                return f"{agent} to be let to encrypt with its key"
        return None

    def grant(self, kind: list[str], name: str, flags: dict[str, str]) -> tuple[str, int]:
        if self.state.get("late") and flags["member"].startswith("serviceAccount:d"):
            self.state["late"] -= 1
            return f"INVALID_ARGUMENT: Service account {flags['member']} does not exist.", 1
        account = re.fullmatch(r"serviceAccount:(\w[\w-]*)@[\w-]+\.iam\.gserviceaccount\.com", flags["member"])
        agent = account and account[1].startswith("service-")
        if account and not agent and f"service-accounts {account[1]}" not in self.things:
            return f"INVALID_ARGUMENT: {flags['member']} does not exist", 1
        custom = re.fullmatch(r"projects/[\w-]+/roles/(\w+)", flags["role"])
        if custom and f"roles {custom[1]}" not in self.things:
            return f"INVALID_ARGUMENT: {flags['role']} does not exist", 1
        policy = self.policies.setdefault(f"{' '.join(kind)} {name}", {"bindings": []})
        binding: dict[str, Any] = {"role": flags["role"], "members": [flags["member"]]}
        if flags.get("condition", "None") != "None":
            found = re.fullmatch(r"\^;\^title=(.*?);expression=(.*)", flags["condition"], re.S)
            assert found, flags["condition"]
            binding["condition"] = {"title": found[1], "expression": found[2]}
        if binding not in policy["bindings"]:
            policy["bindings"].append(binding)
        return "", 0


if __name__ == "__main__":
    sys.exit(main([word for word in sys.argv[1:] if word != "--quiet"]))
