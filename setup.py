"""Builds the native module with CMake and Ninja; everything else is in pyproject.toml."""

import os
import subprocess
import sys
from pathlib import Path

import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()


class CMakeBuild(build_ext):
    """Configure, build and install into the place setuptools wants the extension."""

    def build_extension(self, ext: Extension) -> None:
        if ext.optional:  # came with the first
            return
        prefix = Path(self.get_ext_fullpath(ext.name)).parent.parent.resolve()
        build = Path(self.build_temp).resolve() / "cmake"
        build.mkdir(parents=True, exist_ok=True)
        configure = [
            "cmake", "--fresh", "-G", "Ninja", "-S", str(ROOT), "-B", str(build),
            "-DCMAKE_BUILD_TYPE=Release",
            f"-DCMAKE_INSTALL_PREFIX={prefix}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        ]  # fmt: skip
        # Settings of the build, see CMakeLists.txt.
        configure += [
            f"-D{name}={os.environ[name]}"
            for name in ("PN_CUDA", "PN_CUDA_ARCHITECTURES", "PN_CUTLASS")
            if name in os.environ
        ]
        subprocess.run(configure, check=True)
        subprocess.run(["cmake", "--build", str(build)], check=True)
        subprocess.run(["cmake", "--install", str(build)], check=True)


modules = [Extension("pyneuro._native", sources=[]), Extension("pyneuro._cuda", sources=[], optional=True)]
setup(ext_modules=modules, cmdclass={"build_ext": CMakeBuild})
