"""The two ways to install glamkit name the same packages."""

from __future__ import annotations

import re
import tomllib

import yaml
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from glamkit.bench import builds

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TEXT = (ROOT / "environment.yml").read_text()
ENVIRONMENT = yaml.safe_load(TEXT)
CONDA_NAMES = {"torch": "pytorch"}
# The packages that the project promises to name in its conda environment.
CARD = {"torch", "mamba-ssm", "gymnasium", "ale-py", "jupyterlab", "ipywidgets", "matplotlib", "papermill"}


def specifiers(lines: list[str]) -> dict[str, SpecifierSet]:
    """Package name (as pip calls it) -> its versions."""
    pip_names = {conda: pip for pip, conda in CONDA_NAMES.items()}
    needs = [Requirement(line) for line in lines]
    return {pip_names.get(need.name, need.name): need.specifier for need in needs}


CORE = specifiers(PROJECT["dependencies"])
CONDA = specifiers([line for line in ENVIRONMENT["dependencies"] if isinstance(line, str)])
(PIP,) = [part["pip"] for part in ENVIRONMENT["dependencies"] if isinstance(part, dict)]
SWITCHED_OFF = specifiers(re.findall(r"^  # - (\S+)", TEXT, re.M))


def test_conda_and_pip_install_the_same_packages_in_the_same_versions() -> None:
    pip = specifiers([line for line in PIP if not line.startswith("-")])
    python = CONDA.pop("python")
    assert python == SpecifierSet(PROJECT["requires-python"])
    assert "pip" in CONDA, "conda warns if pip is used without being named"
    both = {name: versions for name, versions in {**CONDA, **pip}.items() if name != "pip"}
    assert both == CORE
    assert not set(CONDA) & set(pip), "named twice"


def test_the_checkout_itself_is_installed() -> None:
    assert PIP[-1] == "-e ."


def test_everything_comes_from_conda_forge() -> None:
    assert ENVIRONMENT["channels"] == ["conda-forge", "nodefaults"]
    assert ENVIRONMENT["name"] == PROJECT["name"]


def test_mamba_is_one_line_that_is_switched_off() -> None:
    assert set(SWITCHED_OFF) == {"mamba-ssm"}
    assert "conda install -n glamkit -c conda-forge mamba-ssm" in TEXT
    assert builds.INSTALL in (ROOT / "glamkit" / "ops" / "README.md").read_text().splitlines()


def test_the_environment_names_all_that_it_promises() -> None:
    assert set(CONDA) | set(SWITCHED_OFF) | set(specifiers(PIP[:-1])) >= CARD


def test_the_games_come_from_where_they_are_shipped() -> None:
    """conda-forge builds ale-py without its ROMs, so that no game would open."""
    assert "ale-py" not in CONDA and any(line.startswith("ale-py") for line in PIP)


def test_nothing_needs_cuda() -> None:
    extras = PROJECT["optional-dependencies"].values()
    assert not {"mamba-ssm", "causal-conv1d"} & set(CORE).union(*map(specifiers, extras))
