import pytest

from tests.reporting.browser import Browser, find_browser
from tests.reporting.made_runs import make_run


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    path = find_browser()
    if path is None:
        pytest.skip("no Chromium here: the page is not looked at")
    browser = Browser(path, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def run_dir(tmp_path):
    return make_run(tmp_path / "run")
