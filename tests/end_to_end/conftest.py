import pytest

from launch.demo.model import write_model
from launch.demo.problems import make_problems, write_math_directory


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """The demo's model and a small part of its data: what every run here is given."""
    directory = tmp_path_factory.mktemp("inputs")
    write_model(directory / "model", 0)
    train, test = make_problems(0, num_train=90, num_test=12)
    write_math_directory(directory / "data", train, test=test)
    return {
        "model_path": directory / "model",
        "data_path": directory / "data",
        "cache_dir": directory / "cache",  # not that of the user: it may hold what older code made
    }
