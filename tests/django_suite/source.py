"""The source distribution of the Django that is installed: wheels leave its test suite out."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import django


def fetch_tests(folder: Path) -> Path:
    """Return the folder `tests` of the installed Django's source, which is kept in `folder` between runs."""
    version = django.get_version()
    unpacked = folder / f"django-{version}"
    if not (unpacked / "tests" / "runtests.py").exists():
        folder.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "Django", f"Django=={version}"]
        subprocess.run([*pip, "--dest", str(folder)], check=True)
        archive = next(folder.glob(f"[Dd]jango-{version}.tar.gz"))
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    return next(folder.glob(f"[Dd]jango-{version}/tests"))
