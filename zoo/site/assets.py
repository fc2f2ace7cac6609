"""The runtime that executes ONNX files in the browser, from its npm package."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from zoo.errors import ConfigError

__all__ = ["RUNTIME", "copy_runtime"]

#: The npm package and the version that the page was written for.
RUNTIME = "onnxruntime-web@1.30.0"

#: Its files for WebAssembly and for WebGPU.
FILES = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
    "ort.webgpu.min.mjs",
    "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
)


def copy_runtime(target: Path, source: Path | None = None) -> None:
    """Copy the runtime into a folder.

    Args:
        target: The folder, which is created.
        source: The folder ``dist`` of the npm package; by default npm downloads the package.

    Raises:
        ConfigError: If the package cannot be installed, or lacks a file.
    """
    if source is not None:
        _copy(source, target)
        return
    npm = shutil.which("npm")
    if npm is None:
        raise ConfigError(
            f"npm is not installed, and the page needs {RUNTIME}; install npm, or give the folder "
            "of the package: --runtime node_modules/onnxruntime-web/dist"
        )
    with tempfile.TemporaryDirectory() as folder:
        install = [npm, "install", "--no-save", "--ignore-scripts", "--no-audit", RUNTIME]
        done = subprocess.run(install, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
            raise ConfigError(f"npm cannot install {RUNTIME}: {reason}; see --runtime")
        _copy(Path(folder) / "node_modules" / "onnxruntime-web" / "dist", target)


def _copy(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if not (source / name).is_file():
            raise ConfigError(
                f"{source} has no {name}; expected the folder dist of the npm package {RUNTIME}"
            )
        shutil.copyfile(source / name, target / name)
