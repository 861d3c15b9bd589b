"""Random damage to a checkpoint, from a seed: all of it is found, none is loaded."""

import logging
import random
import shutil

import pytest

from sft_dist.checkpoint import damage, find_checkpoint
from tests.checkpoint.fakes import Writer, save

TRIES = 300


def truncated(rng, path):
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data))])


def flipped(rng, path):
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(data))


def range_of_zeros(rng, path):
    """As a file system leaves blocks that were never written."""
    data = bytearray(path.read_bytes())
    start = rng.randrange(len(data))
    stop = rng.randint(start + 1, len(data))
    if not any(data[start:stop]):
        data[start] = 1
    else:
        data[start:stop] = bytes(stop - start)
    path.write_bytes(bytes(data))


def range_of_noise(rng, path):
    data = bytearray(path.read_bytes())
    start = rng.randrange(len(data))
    for position in range(start, rng.randint(start + 1, len(data))):
        data[position] ^= rng.randint(1, 255)
    path.write_bytes(bytes(data))


def longer(rng, path):
    path.write_bytes(path.read_bytes() + rng.randbytes(rng.randint(1, 9)))


def missing(rng, path):
    path.unlink()


def emptied(rng, path):
    path.write_bytes(b"")


def renamed(rng, path):
    path.rename(path.with_name(path.name + ".bak"))


def exchanged(rng, path):
    others = [p for p in path.parent.iterdir() if p.is_file() and p != path]
    other = rng.choice([p for p in others if p.read_bytes() != path.read_bytes()])
    mine, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(mine)


def directory_gone(rng, path):
    shutil.rmtree(path.parents[0] if path.parent.name == "engine" else path.parent / "engine")


KINDS = [truncated, flipped, range_of_zeros, range_of_noise, longer, missing, emptied, renamed,
         exchanged, directory_gone]  # fmt: skip


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("damage")
    save(run_dir, 4)
    save(run_dir, 8, writer=Writer(random.Random(0).randbytes(2000)))
    return run_dir


def test_hundreds_of_damages_are_all_found_and_the_older_checkpoint_is_taken(run_dir, caplog):
    caplog.set_level(logging.CRITICAL)
    whole = run_dir / "whole"
    damaged = run_dir / "checkpoint-8"
    shutil.copytree(damaged, whole)
    files = sorted(str(p.relative_to(whole)) for p in whole.rglob("*") if p.is_file())
    silent, seen = [], set()
    for seed in range(TRIES):
        rng = random.Random(seed)
        kind, name = KINDS[seed % len(KINDS)], rng.choice(files)
        kind(rng, damaged / name)
        seen.add((kind.__name__, name))
        if not damage(damaged) or find_checkpoint(run_dir, "latest").name != "checkpoint-4":
            silent.append((seed, kind.__name__, name))
        shutil.rmtree(damaged)
        shutil.copytree(whole, damaged)
    assert not silent
    assert len(seen) > 60  # of 10 kinds and 7 files
    assert damage(damaged) == []
