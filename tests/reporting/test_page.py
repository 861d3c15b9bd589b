import base64
import hashlib
import re
from pathlib import Path

import pytest

import sft_dist.reporting
from sft_dist.reporting import page as page_module
from sft_dist.reporting.page import LIBRARIES, SCRIPTS, build_page
from sft_dist.reporting.run import read_run
from tests.reporting.made_runs import made_problems, make_run

ROOM = Path(sft_dist.reporting.__file__).parent
HOSTILE = (
    '</script><script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">{{PARTS}}'
)
FORBIDDEN = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function"
)


@pytest.fixture
def page(run_dir):
    return build_page([read_run(run_dir)])


def scripts_of(page):
    return re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)


def test_the_page_names_no_address_that_a_browser_would_fetch(page):
    markup = page
    for script in scripts_of(page):
        markup = markup.replace(script, "")
    assert not re.search(r"""(src|href)\s*=\s*["']?\s*(https?:)?//""", markup)
    assert not re.search(r"url\((?!data:)", markup)
    assert "@import" not in markup


def test_the_policy_lets_only_our_scripts_run_and_fetches_nothing(page):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert "default-src 'none'" in policy
    assert "script-src 'unsafe" not in policy
    digests = set(re.findall(r"'sha256-([^']+)'", policy))
    found = scripts_of(page)
    assert len(found) == len(LIBRARIES) + 1
    for script in found:
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in digests


def test_text_of_models_and_data_is_no_markup(tmp_path):
    problems = made_problems(5)
    for row in problems:
        row["problem"], row["subject"] = HOSTILE, HOSTILE
    run_dir = make_run(
        tmp_path / "run<b>", problems=problems, respond=lambda *_: HOSTILE, model_path=HOSTILE
    )
    page = build_page([read_run(run_dir)])
    assert "window.hacked" in page  # as JSON
    assert "<img src=x" not in page
    assert "run<b>" not in page
    parts = len(re.findall(r'<script type="text/plain"', page))
    assert page.count("<script") == page.count("</script>") == len(LIBRARIES) + 1 + 1 + parts


def test_our_scripts_never_parse_markup_or_code():
    for name in SCRIPTS:
        script = (ROOM / "page" / f"{name}.js").read_text()
        assert not FORBIDDEN.search(script), name


def test_every_script_of_the_room_is_in_the_page():
    assert {path.stem for path in (ROOM / "page").glob("*.js")} == set(SCRIPTS)


def test_no_placeholder_is_left(page):
    assert not re.search(r"\{\{[A-Z]+\}\}", page)


def test_fonts_and_licences_are_inside(page):
    fonts = len(list((ROOM / "vendor/katex/fonts").glob("*.woff2")))
    assert page.count("data:font/woff2;base64,") == fonts
    assert "Leon Sorokin" in page
    assert "Khan Academy" in page


def test_bundled_files_are_those_that_the_script_fetched():
    lines = (ROOM / "vendor/VERSIONS").read_text().splitlines()
    listed = dict(reversed(line.split()) for line in lines if not line.startswith("#"))
    found = {
        str(path.relative_to(ROOM / "vendor")): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (ROOM / "vendor").rglob("*")
        if path.is_file() and path.name != "VERSIONS"
    }
    assert found == listed


def test_a_large_run_stays_below_its_limit_and_keeps_what_matters(run_dir, monkeypatch):
    view = read_run(run_dir)
    names = [evaluation["name"] for evaluation in view.data["evaluations"]]
    whole = page_module._pack([view])
    sizes = {name: len(part) for name, part in whole.parts.items()}
    budget = sizes["p0"] + sizes[names[-1]] + sizes[names[0]] + 10
    monkeypatch.setattr(page_module, "Packed", lambda: type(whole)(budget=budget))
    packed = page_module._pack([view])
    assert set(packed.parts) == {"p0", names[0], names[-1]}  # the base and the last


def test_an_evaluation_too_large_for_the_page_is_shown_in_part(tmp_path, monkeypatch):
    view = read_run(make_run(tmp_path / "run", num_problems=900))
    last = view.data["evaluations"][-1]["name"]
    whole = page_module._pack([view])
    budget = len(whole.parts["p0"]) + len(whole.parts[last]) - 1
    monkeypatch.setattr(page_module, "Packed", lambda: type(whole)(budget=budget))
    assert last in page_module._pack([view]).parts


def test_the_same_run_gives_the_same_parts(run_dir):
    first, second = (page_module._pack([read_run(run_dir)]).parts for _ in range(2))
    assert first == second


def test_several_runs_are_in_one_page(tmp_path):
    runs = [make_run(tmp_path / name, num_problems=10) for name in ("one", "two")]
    page = build_page([read_run(path, prefix=f"r{i}") for i, path in enumerate(runs)])
    assert page.count('<script type="text/plain"') == 2 * (3 + 1)
    assert "<title>one, two - sft_dist report</title>" in page
