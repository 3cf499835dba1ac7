"""The console in its container, where no package is installed: `python -m support.console`, as `audit console`."""

from support.console.command import console

if __name__ == "__main__":
    console(prog_name="support.console")
