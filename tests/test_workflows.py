"""The workflows of the repository's host are well formed and call what is there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_there_are_workflows_for_tests_pages_and_releases() -> None:
    assert [path.stem for path in WORKFLOWS] == ["docs", "release", "tests"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_is_bounded_and_has_few_rights(path: Path) -> None:
    workflow = read(path)
    assert {"name", "permissions", "jobs"} <= set(workflow) and True in workflow  # YAML reads the key `on` as true
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        assert job["timeout-minutes"] <= 180, name
        for needed in [job["needs"]] if "needs" in job else []:
            assert needed in workflow["jobs"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_have_a_version_and_commands_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for step in steps(read(path)):
        assert ("uses" in step) != ("run" in step)
        if "uses" in step:
            assert re.fullmatch(r"[\w-]+/[\w-]+@(v\d+|release/v\d+)", step["uses"])
        for target in re.findall(r"^make (\w+)$", step.get("run", ""), re.MULTILINE):
            assert target in targets
        for script in re.findall(r"^bash (\S+)$", step.get("run", ""), re.MULTILINE):
            assert (ROOT / script).is_file()


def test_the_tests_run_on_every_supported_python_and_system() -> None:
    matrix = read(ROOT / ".github/workflows/tests.yml")["jobs"]["fast"]["strategy"]["matrix"]
    supported = [c.rsplit(" ", 1)[1] for c in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", c)]
    assert matrix["python"] == supported == ["3.11", "3.12", "3.13", "3.14"]
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}


def test_a_release_is_published_without_a_stored_token() -> None:
    path = ROOT / ".github/workflows/release.yml"
    jobs = read(path)["jobs"]
    assert jobs["publish"]["needs"] == "build" and jobs["publish"]["permissions"] == {"id-token": "write"}
    assert "secrets." not in path.read_text() and "password" not in path.read_text()
    assert read(path)[True] == {"push": {"tags": ["v*"]}}


@pytest.mark.parametrize("name", ["bug", "feature"])
def test_issue_forms_are_well_formed(name: str) -> None:
    form = read(ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml")
    assert {"name", "description", "body"} <= set(form)
    ids = [part["id"] for part in form["body"]]
    assert len(set(ids)) == len(ids) and all(part["attributes"]["label"] for part in form["body"])


@pytest.mark.parametrize("name", ["SECURITY.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "CITATION.cff", "LICENSE"])
def test_what_a_repository_says_of_itself(name: str) -> None:
    assert (ROOT / name).stat().st_size > 500
