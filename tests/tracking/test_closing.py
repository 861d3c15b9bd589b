"""The table at the end of a run."""

from sft_dist.tracking.closing import MOST_LINES, closing_table


def step_row(step, loss, rate=1000.0):
    return {"step": step, "train/loss": loss, "perf/tokens_per_second": rate}


def eval_row(step, accuracy, **more):
    return {
        "eval/step": step, "eval/accuracy": accuracy, "eval/accuracy_low": accuracy / 2,
        "eval/accuracy_high": min(1.0, 2 * accuracy), "eval/num_problems": 200, **more,
    }  # fmt: skip


def test_each_evaluation_stands_with_the_loss_of_its_step():
    since = {"eval/vs_base_delta": 0.4, "eval/vs_base_gained": 90, "eval/vs_base_lost": 10,
             "eval/vs_base_p_value": 1.2e-16}  # fmt: skip
    rows = [eval_row(0, 0.1), step_row(1, 2.5), step_row(2, 1.25, 3000.0), step_row(4, 0.5),
            eval_row(3, 0.5, **since)]  # fmt: skip
    assert closing_table(rows).splitlines() == [
        "step         loss  accuracy                         since step 0",
        "   0                10.0% (5.0% to 20.0%) of 200",
        "   1       2.5000",
        "   3  1.2500 at 2   50.0% (25.0% to 100.0%) of 200  90 gained, 10 lost, p = 1.2e-16",
        "   4       0.5000",
        "4 steps, median 1,000 tok/s",
    ]


def test_of_many_evaluations_the_first_the_best_and_the_last_are_told():
    rows = [eval_row(step, 0.9 if step == 7 else 0.1) for step in range(100)]
    lines = closing_table(rows).splitlines()[1:]
    assert len(lines) == MOST_LINES
    assert [int(line.split()[0]) for line in lines[:3]] == [0, 7, 102 - MOST_LINES]
    assert int(lines[-1].split()[0]) == 99


def test_a_step_that_was_taken_again_counts_once():
    table = closing_table([step_row(1, 3.0), step_row(2, 9.0), step_row(2, 1.0)])
    assert "9.0000" not in table
    assert table.splitlines()[-2].split() == ["2", "1.0000"]


def test_a_run_that_has_recorded_nothing_has_only_the_head():
    assert closing_table([]).split() == ["step", "loss", "accuracy", "since", "step", "0"]


def test_steps_without_an_update_have_no_loss():
    skipped = {"step": 1, "perf/tokens_per_second": 10.0}
    assert "1 steps" in closing_table([skipped])
