"""Write requirements/*.lock anew: the newest versions that fit pyproject.toml, with hashes, for every platform.

uv does the resolving, in a virtual environment that is thrown away: nothing else here needs it. Where packages come
from is the machine's configuration and stays out of the files.
"""

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNTIME = "requirements/runtime.lock"
COMPILE = ("pip", "compile", "--quiet", "--upgrade", "--universal", "--generate-hashes", "-p", "3.11")
"""No --emit-… option: no index and no folder of this machine is written down."""
LOCKS = (
    ("-o", RUNTIME, "pyproject.toml", "requirements/build.in"),
    ("--extra", "dev", "-c", RUNTIME, "-o", "requirements/dev.lock", "pyproject.toml", "requirements/build.in"),
)


def main() -> int:
    """Resolve both locks, the second under the versions of the first."""
    with tempfile.TemporaryDirectory() as scratch:
        venv.create(scratch, with_pip=True)
        python = Path(scratch) / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", "uv"], check=True, timeout=600)
        environ = {**os.environ, "UV_CUSTOM_COMPILE_COMMAND": "make lock"}
        if "PIP_FIND_LINKS" in environ:  # uv does not read pip's settings
            environ.setdefault("UV_FIND_LINKS", environ["PIP_FIND_LINKS"])
        for lock in LOCKS:
            done = subprocess.run(
                [python.with_name("uv"), *COMPILE, *lock],
                cwd=ROOT,
                env=environ,
                check=False,
                timeout=600,
                stdout=subprocess.DEVNULL,
            )
            if done.returncode:
                return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
