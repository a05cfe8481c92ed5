"""Makes the wheel (PEP 517), with nothing but Python: so "pip install ." needs no network, whatever is installed.

The wheel carries libhandoff.so.0: the file that LIBHANDOFF names, or what cargo builds if this directory is in the
source tree. Without both it carries none, is for any platform, and uses the library that the system has.
"""

import base64
import hashlib
import io
import os
import re
import shutil
import subprocess
import sysconfig
import tarfile
import zipfile
from pathlib import Path

SONAME = "libhandoff.so.0"
HERE = Path(__file__).resolve().parent
TREE = HERE.parent.parent
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "handoff/__init__.py").read_text(), re.M).group(1)
NAME = f"handoff-{VERSION}"
METADATA = f"""Metadata-Version: 2.1
Name: handoff
Version: {VERSION}
Summary: Replaces the program of a running daemon: no connection refused, no acknowledged write lost.
License: MIT OR Apache-2.0
Requires-Python: >=3.9
Classifier: Operating System :: POSIX :: Linux
Classifier: Typing :: Typed
Description-Content-Type: text/markdown

{(HERE / "README.md").read_text()}"""


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    library = find_library()
    # No extension module is in it: one wheel for every Python 3. "linux", not "manylinux": what it asks of glibc is what the
    # machine has that built it.
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_") if library else "any"
    tag = f"py3-none-{platform}"
    files = {str(path.relative_to(HERE)): path.read_bytes() for path in sources("handoff")}
    if library:
        files[f"handoff/{SONAME}"] = library.read_bytes()
    info = f"{NAME}.dist-info"
    files[f"{info}/METADATA"] = METADATA.encode()
    pure = "false" if library else "true"
    files[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: handoff\nRoot-Is-Purelib: {pure}\nTag: {tag}\n".encode()
    files[f"{info}/RECORD"] = record(files, f"{info}/RECORD")
    wheel = f"{NAME}-{tag}.whl"
    with zipfile.ZipFile(Path(wheel_directory) / wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)  # the same bytes from the same files, whenever it is made
            entry.external_attr = (0o100755 if name.endswith(SONAME) else 0o100644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return wheel


def build_sdist(sdist_directory, config_settings=None):
    paths = [*sources("handoff"), *sources("examples"), *sources("tests")]
    paths += [HERE / name for name in ("README.md", "backend.py", "pyproject.toml")]
    sdist = f"{NAME}.tar.gz"
    with tarfile.open(Path(sdist_directory) / sdist, "w:gz") as archive:
        for path in paths:
            archive.add(path, f"{NAME}/{path.relative_to(HERE)}")
        entry = tarfile.TarInfo(f"{NAME}/PKG-INFO")
        entry.size = len(METADATA.encode())
        archive.addfile(entry, io.BytesIO(METADATA.encode()))
    return sdist


def find_library():
    """The path of the library; None: the system's is meant."""
    chosen = os.environ.get("LIBHANDOFF")
    if chosen:
        return Path(chosen)
    if not (TREE / "include/handoff.h").exists() or not shutil.which("cargo"):
        return None
    command = ["cargo", "rustc", "--release", "--locked", "--lib", "--crate-type", "cdylib", "--no-default-features"]
    subprocess.run(command, cwd=TREE, check=True)
    return TREE / os.environ.get("CARGO_TARGET_DIR", "target") / "release/libhandoff.so"


def sources(directory):
    return sorted(path for path in (HERE / directory).rglob("*") if path.suffix in (".py", ".typed"))


def record(files, own_name):
    lines = []
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(data)}\n")
    return "".join([*lines, f"{own_name},,\n"]).encode()
