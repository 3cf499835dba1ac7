"""A clone of the working tree with its own state, under the real Pulumi CLI, and a cloud that is a file."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from unittest import mock

import grpc
import psutil
import pulumi
import yaml

from components.config import ROOT
from delivery import deploy, pin
from graph.resources import CONSOLE_IMAGE, IMAGE
from guardrails.iam import STACKS
from local.machine import installed
from tests.infra import plugin, transit
from tests.infra.cloud import Cloud
from tests.infra.graphs import graph_of

_LONGEST = 240
_HOST = "python370"
# Else the CLI writes the whole state for each resource, which is most of what it computes.
_AT_THE_END = {"PULUMI_SKIP_CHECKPOINTS": "true", "PULUMI_DIY_BACKEND_DISABLE_CHECKPOINT_BACKUPS": "true"}
EMPTY = "import pulumi\n"
# Appended to the program.
BREAKS_A_RULE = """
import pulumi_gcp
pulumi_gcp.projects.IAMMember("bad", project="p", role="roles/editor", member="user:a@b.c", opts=opts)
"""


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a command gave back. `report` is deploy's own, with --json."""

    code: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        return dict(json.loads(self.out))

    def names(self, op: str) -> set[str]:
        """The resources that were changed so."""
        return {change["name"] for change in self.report["changes"] if change["op"] == op}


class Clone:
    """`folder` is the clone, `cloud` what its stacks make. Nothing of it is outside the folder above.

    With `as_shipped` the stacks' files are the repository's; else they have the one value that delivery adds, an image.
    What `deploy` makes has its secrets from a key service (`tests/infra/transit.py`), or by a passphrase.
    """

    def __init__(
        self, above: Path, backend: str = "state", *, as_shipped: bool = False, passphrase: bool = False
    ) -> None:
        self._secrets_provider = "" if passphrase else transit.PROVIDER
        self.folder = above / "clone"
        self.cloud = Cloud(above / "cloud" / "cloud.json")
        self.state = above / backend
        self._above, self._hosts = above, above / "hosts"
        for folder in (self.state, self.cloud.file.parent):
            folder.mkdir(parents=True, exist_ok=True)
        if not self.folder.exists():
            self._copy()
            for stack in () if as_shipped else STACKS:
                self.configure(stack, image=IMAGE, consoleImage=CONSOLE_IMAGE)

    def copy(self, above: Path) -> Clone:
        """Another like it, with all that it made: they go on apart."""
        shutil.copytree(self._above, above, symlinks=True, dirs_exist_ok=True)
        return Clone(above, self.state.name)

    def _copy(self) -> None:
        """The files that git tracks or would, as they are now; the Python environment is shared."""
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.folder / name)
                compiled = ROOT / importlib.util.cache_from_source(name)
                if name.endswith(".py") and compiled.is_file():
                    (self.folder / name).parent.joinpath("__pycache__").mkdir(exist_ok=True)
                    shutil.copy2(compiled, self.folder / importlib.util.cache_from_source(name))
        (self.folder / ".venv").symlink_to(sys.prefix)
        self._name_the_host()

    def _name_the_host(self) -> None:
        """Lets the program ask for the Python host that was built here by another name than a policy pack does.

        That host is older than the CLI and cannot run packs: if it were found as `python`, the CLI would leave them to
        it. So the CLI starts them by its own script, which gives them the same environment as a newer host does.
        """
        built = installed.pulumi() / "language"
        if not (built / "pulumi-language-python").exists():
            return
        self._hosts.mkdir(exist_ok=True)
        (self._hosts / f"pulumi-language-{_HOST}").symlink_to(built / "pulumi-language-python")
        (self._hosts / "pulumi-language-python-exec").symlink_to(built / "pulumi-language-python-exec")
        project = self.folder / "Pulumi.yaml"
        project.write_text(project.read_text().replace("  name: python\n", f"  name: {_HOST}\n"))

    @cached_property
    def _attached(self) -> tuple[grpc.Server, int]:
        """The plugin in this process, which the CLI attaches to: it has imported what the plugin needs."""
        return plugin.serve(self.cloud.file)

    @cached_property
    def environment(self) -> Mapping[str, str]:
        """Nothing of the user's own Pulumi is used: neither home nor login."""
        home = self._above / "pulumi"
        home.mkdir(exist_ok=True)
        # A file where the CLI makes its folder of logs: else it logs each property, a fifth of a run's CPU.
        (home / "logs").touch()
        path = [installed.pulumi() / "bin", os.environ["PATH"]]
        return {
            **_AT_THE_END,
            **transit.environment(),
            "PULUMI_SECRETS_PROVIDER": self._secrets_provider,
            "PATH": os.pathsep.join(map(str, path)),
            "HOME": os.environ["HOME"],
            "PULUMI_HOME": str(home),
            "PULUMI_BACKEND_URL": f"file://{self.state}",
            "PULUMI_CONFIG_PASSPHRASE": "correct horse",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            # Its memory is collected when there is much of it, not each time that it has doubled.
            "GOGC": "off",
            "GOMEMLIMIT": "500MiB",
            "PULUMI_DEBUG_PROVIDERS": f"gcp:{self._attached[1]}",
        }

    def deploy(self, *args: str, as_json: bool = True) -> Done:
        """`python -m delivery.deploy`, in this process: what it imports is there already."""
        return self._deploy(self.environment, *args, as_json=as_json)

    def _deploy(self, environment: Mapping[str, str], *args: str, as_json: bool = True) -> Done:
        out, err = io.StringIO(), io.StringIO()
        options = ["--json"] if as_json else []
        # The cloud of these tests is a file, and answers no question.
        options += ["--no-preflight"] if args[0] == "up" else []
        captured = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
        with _environment(environment), _sparing(), captured[0], captured[1]:
            code = deploy.run([*args, *options, "--folder", str(self.folder)])
        return Done(code=code, out=out.getvalue(), err=err.getvalue())

    def pulumi(self, *args: str, input: str | None = None) -> Done:
        """The CLI in a shell, with the language host that runs the program in its own process."""
        done = subprocess.run(
            ["pulumi", *args, "--non-interactive"],
            cwd=self.folder,
            env=self.in_a_shell,
            input=input,
            check=False,
            capture_output=True,
            text=True,
            timeout=_LONGEST,
        )
        return Done(code=done.returncode, out=done.stdout, err=done.stderr)

    @cached_property
    def in_a_shell(self) -> dict[str, str]:
        # The host that is built here does not learn of Pulumi.yaml's virtualenv either.
        first = [self._hosts, Path(sys.prefix) / "bin"]
        return {**self.environment, "PATH": os.pathsep.join([*map(str, first), self.environment["PATH"]])}

    def interrupt(self, *args: str, at: str, with_signal: signal.Signals) -> Done:
        """Starts a deployment, waits until it makes a resource (`before NAME`, `after NAME`), and signals its CLI."""
        self.cloud.holding.write_text(at)
        # What it had made must be in the state: it is all that the next run knows.
        environment = {key: value for key, value in self.environment.items() if key != "PULUMI_SKIP_CHECKPOINTS"}
        with ThreadPoolExecutor() as threads:
            run = threads.submit(self._deploy, environment, *args)
            try:
                _wait(lambda: run.done() or self.cloud.held.exists())
                assert not run.done(), f"nobody waits {at}: {run.result()}"
                [cli] = [child for child in _children(os.getpid()) if child.name() == "pulumi"]
                packs = _children(cli.pid)
                if with_signal == signal.SIGKILL:
                    self._stop_between_writes(cli)
                cli.send_signal(with_signal)
                if with_signal == signal.SIGINT:
                    # It ends what it has begun, and begins nothing more.
                    time.sleep(1)
                else:
                    # It leaves its policy pack behind. The plugin gives up what it was held up at.
                    for pack in packs:
                        with contextlib.suppress(psutil.NoSuchProcess):
                            pack.kill()
                    _wait(lambda: not self.cloud.held.exists())
            finally:
                self.cloud.holding.unlink()
            return run.result()

    def _stop_between_writes(self, cli: psutil.Process) -> None:
        """Stops it where all that `file://` keeps is whole: it writes the attributes of a checkpoint in place."""
        deadline = time.monotonic() + _LONGEST
        while time.monotonic() < deadline:
            cli.suspend()
            while cli.status() != psutil.STATUS_STOPPED:
                time.sleep(0.01)
            kept = [file.read_text() for file in (self.state / ".pulumi" / "stacks").rglob("*.json*")]
            if all(_is_json(text) for text in kept):
                return
            cli.resume()
            time.sleep(0.05)
        raise AssertionError("the CLI was never between two writes")

    def pin(self, stack: str) -> None:
        """Brings the images, by the documented command; its gcloud knows the digest of every tag."""
        gcloud = self._above / "bin" / "gcloud"
        gcloud.parent.mkdir()
        gcloud.write_text(f"#!/bin/sh\necho sha256:{'7' * 64}\n")
        gcloud.chmod(0o755)
        name = f"us-central1-docker.pkg.dev/payment-audit-{stack}/audit-images/job"
        for setting, image in (("image", name), ("consoleImage", f"{name}-console")):
            command = ["image", "-s", stack, "--name", image, "--tag", "first", "--setting", setting]
            with _environment({**os.environ, "PATH": f"{gcloud.parent}{os.pathsep}{os.environ['PATH']}"}):
                assert pin.run([*command, "--folder", str(self.folder)]) == 0

    def configure(self, stack: str, **values: Any) -> None:
        """Changes a stack's file, as a person would. None takes a value out."""
        file = self.folder / f"Pulumi.{stack}.yaml"
        content = yaml.safe_load(file.read_text())
        for key, value in values.items():
            if value is None:
                content["config"].pop(f"payment-audit:{key}", None)
            else:
                content["config"][f"payment-audit:{key}"] = value
        file.write_text(yaml.safe_dump(content))

    def forget_secrets_provider(self, stack: str) -> None:
        """Makes the stack's file that of a fresh checkout: how its secrets are kept is not in git."""
        file = self.folder / f"Pulumi.{stack}.yaml"
        content = yaml.safe_load(file.read_text())
        assert content.pop("encryptionsalt")
        file.write_text(yaml.safe_dump(content))

    def setting(self, stack: str, key: str) -> Any:
        """A value of a stack's file; None where it says nothing."""
        content = yaml.safe_load((self.folder / f"Pulumi.{stack}.yaml").read_text())
        return content["config"].get(f"payment-audit:{key}")

    @contextlib.contextmanager
    def program(self, changed: str) -> Iterator[None]:
        """Another `__main__.py` for a while."""
        file = self.folder / "__main__.py"
        text = file.read_text()
        file.write_text(changed)
        yield
        file.write_text(text)

    @property
    def text_of_the_program(self) -> str:
        return (self.folder / "__main__.py").read_text()

    def exported(self, stack: str) -> dict[str, Any]:
        """The stack's state."""
        done = self.pulumi("stack", "export", "--stack", stack)
        assert done.code == 0, done.err
        return dict(json.loads(done.out)["deployment"])

    def made(self, stack: str) -> set[tuple[str, str]]:
        """(type, name) of what the state has, but for the provider of Pulumi's own resources, which the engine adds."""
        there = [r for r in self.exported(stack)["resources"] if r["custom"]]
        return {(r["type"], r["urn"].split("::", 3)[3]) for r in there if r["type"] != "pulumi:providers:pulumi"}

    def state_files(self) -> dict[Path, bytes]:
        """Everything that the backend keeps."""
        return {file: file.read_bytes() for file in self.state.rglob("*") if file.is_file()}

    def state_file(self, stack: str) -> str:
        return (self.state / ".pulumi" / "stacks" / "payment-audit" / f"{stack}.json").read_text()


@dataclass(frozen=True, kw_only=True)
class Made:
    """A stack with its file as shipped, as the order of docs/deployment.md leaves it, and what each command said.

    A test that continues from there takes a copy.
    """

    above: Path
    # Without an image: previews without the job and with it, and the `up` of all but the job.
    foundation_preview: Done
    preview: Done
    foundation: Done
    # With the images.
    up: Done

    @classmethod
    def at(cls, above: Path, stack: str) -> Made:
        """It is made by the first that comes; the others wait for it."""
        kept = above / "said.json"
        with above.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not kept.exists():
                kept.write_text(json.dumps({key: asdict(said) for key, said in _made(above, stack).items()}))
        return cls(above=above, **{key: Done(**said) for key, said in json.loads(kept.read_text()).items()})

    def copy(self, above: Path) -> Clone:
        return Clone(self.above / "stack").copy(above)


def _made(above: Path, stack: str) -> dict[str, Done]:
    clone = Clone(above / "stack", as_shipped=True)
    said = {"foundation_preview": clone.deploy("preview", "-s", stack, "--without-job")}
    said["preview"] = clone.deploy("preview", "-s", stack)
    assert clone.cloud.journal == [], "a preview makes nothing"
    said["foundation"] = clone.deploy("up", "-s", stack, "--without-job")
    clone.pin(stack)
    said["up"] = clone.deploy("up", "-s", stack)
    assert said["up"].code == 2, said["up"].err + said["up"].out
    return said


def wanted(stack: str) -> set[tuple[str, str]]:
    """(type, name) of what the program asks for, by its graph under mocks."""
    return {(node.type, node.name) for node in graph_of(stack).nodes}


@contextlib.contextmanager
def _sparing() -> Iterator[None]:
    """What the SDK does for nobody here. It calls the engine for each line that only `--debug` shows, two thousand
    times in a run, a tenth of its CPU; and it reads Pulumi.yaml, whose values it then forgets, with PyYAML alone."""
    read = partial(yaml.load, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    with mock.patch.object(pulumi.log, "debug", lambda *_, **__: None), mock.patch.object(yaml, "safe_load", read):
        yield


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    kept = dict(os.environ)
    os.environ.clear()
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)


def _wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _LONGEST
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _children(pid: int) -> list[Any]:
    return list(psutil.Process(pid).children(recursive=True))


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
