import fcntl

from sft_dist.reporting.liveness import lock_holder


def test_a_held_lock_is_a_living_trainer_and_a_free_one_a_dead_one(tmp_path):
    with (tmp_path / ".lock").open("a+") as file:
        file.write("pid 7 on node1\n")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        assert lock_holder(tmp_path).life == "alive"
        assert lock_holder(tmp_path).name == "pid 7 on node1"
    assert lock_holder(tmp_path).life == "dead"


def test_looking_leaves_the_lock_free(tmp_path):
    (tmp_path / ".lock").touch()
    lock_holder(tmp_path)
    with (tmp_path / ".lock").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises when it is held


def test_a_directory_without_lock_says_nothing(tmp_path):
    assert lock_holder(tmp_path).life == "unknown"
    assert not list(tmp_path.iterdir())
