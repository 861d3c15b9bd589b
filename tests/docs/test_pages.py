"""Pages that are made from code, and links between pages."""

import re

import pytest

from launch import configuration_page, metrics_page
from tests.docs.commands import PAGES, ROOT


@pytest.mark.parametrize("page", [configuration_page, metrics_page])
def test_a_page_that_is_made_from_code_is_that_of_today(page):
    name = page.__name__.rpartition(".")[2].removesuffix("_page")
    assert (ROOT / "docs" / f"{name}.md").read_text() == page.page()


def test_links_between_pages_lead_somewhere():
    for path in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_flags_named_on_the_pages_exist():
    from sft_dist.arguments import COMMANDS, FLAGS
    from sft_dist.config import ScoringConfig

    scoring = ScoringConfig.__dataclass_fields__
    torchrun_and_slurm = {"nproc_per_node", "nodes", "time", "partition", "account", "requeue"}
    other_commands = {"probe", "dry_run"}  # of sft-preflight and launch.sweep
    for path in (ROOT / "README.md", ROOT / "docs/architecture.md"):
        for flag in re.findall(r"--([a-z][a-z_]+)", path.read_text()):
            known = {*FLAGS, *scoring, *COMMANDS, *torchrun_and_slurm, *other_commands}
            assert flag in known, f"{path.name}: --{flag}"
