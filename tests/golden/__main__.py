"""python -m tests.golden [--update]"""

from __future__ import annotations

import sys
from dataclasses import replace

from tests.golden import of_capture, page
from tests.golden import of_types as types


def main(arguments: list[str]) -> int:
    if "--update" in arguments:
        for golden in types.load():
            golden.path.write_text(types.text(replace(golden, values=types.made(golden))))
        for capture, path in of_capture.paths().items():
            path.write_text(of_capture.text(capture))
    page.PATH.write_text(page.written(page.PATH.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
