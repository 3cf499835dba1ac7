"""Builds the Java program: python -m bench.peer.program, which `make bench-peer` calls.

It needs Java 17 and Maven, which gets Beam from Maven Central. What is built stays in bench/peer/build.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from contract.errors import AuditError
from local.machine.installed import NotInstalled

HOME: Final = Path(__file__).parent
_BUILT: Final = HOME / "build"
_REMEDY: Final = {
    "java": "Install Java 17 (the package openjdk-17-jdk-headless)",
    "mvn": "Install Maven (the package maven)",
}
# What Beam's documents advise for a runner whose threads wait for a server, without the checks that are for tests.
_RUNNER: Final = (
    "--runner=DirectRunner",
    "--targetParallelism=8",
    "--enforceImmutability=false",
    "--enforceEncodability=false",
)


class NotBuilt(AuditError):
    """Maven could not build the program."""


def build() -> None:
    """Compiles it, and leaves its class path. Raises NotInstalled, NotBuilt."""
    tool("java")
    done = subprocess.run([tool("mvn"), "-B", "-q", "-ntp", "-f", HOME / "pom.xml", "compile"], check=False)
    if done.returncode:
        raise NotBuilt(
            "Maven could not build bench/peer. It says above why: it must reach Maven Central, or a settings.xml must "
            "name a mirror of it; and bench/peer/Peer.java needs Java 17 or newer."
        )


def built(folder: Path = _BUILT) -> bool:
    return (folder / "classpath").exists()


def check(folder: Path = _BUILT) -> None:
    """Raises NotInstalled with the remedy where it cannot be started."""
    if not built(folder):
        raise NotInstalled("The peer, a Java program, is not built. Run `make bench-peer`; it needs Java 17 and Maven.")
    tool("java")


def command(
    *, endpoint: str, database: str, metadata: str, streams: str, start: str, out: Path | str, folder: Path = _BUILT
) -> list[str]:
    """How it is started: the options are those of Peer.java. Raises NotInstalled."""
    check(folder)
    places = f"{folder / 'classes'}:{(folder / 'classpath').read_text().strip()}"
    source = {"endpoint": endpoint, "database": database, "metadata": metadata, "streams": streams, "start": start}
    given = [f"--{name}={value}" for name, value in {**source, "out": out}.items()]
    return [tool("java"), "-Xmx2g", "-cp", places, "peer.Peer", *_RUNNER, *given]


def tool(name: str) -> str:
    """The path of `java` or `mvn`. Raises NotInstalled."""
    if found := shutil.which(name):
        return found
    raise NotInstalled(
        f"{name} is not on PATH, and the peer is a Java program. {_REMEDY[name]}, then `make bench-peer`."
    )


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    try:
        build()
    except AuditError as error:
        sys.exit(str(error))
    print("Built bench/peer. Compare: .venv/bin/python -m bench.peer")


if __name__ == "__main__":
    main()
