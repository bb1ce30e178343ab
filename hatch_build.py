"""Builds the compiled kernel into the wheel, where there is a C compiler; without one the wheel is pure Python.

The kernel knows nothing of Python, so one wheel serves every version of it on a platform.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FLAGS = ("-std=c99", "-O3", "-fPIC", "-shared")


class Kernel(BuildHookInterface[Any]):
    """Compiles `src/dropless/native/*.c`."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        folder = Path(self.root, "src", "dropless", "native")
        target, made = folder / "kernel.so", folder / "kernel.new"
        compiler = shutil.which(os.environ.get("CC") or "cc") or shutil.which("gcc") or shutil.which("clang")
        target.unlink(missing_ok=True)  # One of other sources must not be taken for this one.
        if compiler is None:
            return
        try:
            sources = [str(path) for path in sorted(folder.glob("*.c"))]
            subprocess.run([compiler, *FLAGS, "-o", str(made), *sources], check=True, capture_output=True, text=True)
            made.replace(target)
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", None) or str(error)
            self.app.display_warning(f"the kernel is left out, dropless will be slower: {said.strip()}")
            made.unlink(missing_ok=True)
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
        build_data["artifacts"].append("src/dropless/native/kernel.so")
