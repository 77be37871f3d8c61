"""The built distribution: what a user installs is what the tests ran on."""

from __future__ import annotations

import importlib.metadata
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def distribution() -> importlib.metadata.Distribution:
    """The installed distribution; not the metadata that a build leaves in the source tree, which would be found first."""
    found = importlib.metadata.distributions(name="django-pglb", path=[sysconfig.get_path("purelib")])
    installed = next(iter(found), None)
    if installed is None or not any(str(file).startswith("django_pglb/") for file in installed.files or ()):
        pytest.skip("the tests run without an installed wheel here, as tox installs it")
    return installed


def test_wheel_has_the_source_tree_byte_for_byte(distribution: importlib.metadata.Distribution) -> None:
    """Every file of the package is installed, `py.typed` and templates too, and nothing else."""
    sources = {path.relative_to(ROOT): path.read_bytes() for path in (ROOT / "django_pglb").rglob("*") if _is_shipped(path)}
    installed = {Path(file): Path(str(file.locate())).read_bytes() for file in distribution.files or () if _is_of_package(Path(file))}
    assert installed.keys() == sources.keys()
    assert [path for path in sources if installed[path] != sources[path]] == []
    assert Path("django_pglb/py.typed") in installed


def test_metadata_names_license_and_extras(distribution: importlib.metadata.Distribution) -> None:
    """What an index shows, and the extras that the tox environments and users ask for."""
    metadata = distribution.metadata
    assert "MIT" in (metadata.get("License-Expression"), metadata.get("License"))
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
    assert {"cluster", "example", "test"} <= set(metadata.get_all("Provides-Extra", []))
    assert "nobody reads before their own write" in str(metadata.get_payload())


def _is_shipped(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts


def _is_of_package(path: Path) -> bool:
    return path.parts[0] == "django_pglb" and "__pycache__" not in path.parts
