"""An attempt whose folder cannot be made or written in ends by its worker's word, not by its lease."""

from worker_host import Host, small_pretraining

from barlow_lab.run_folder import run_folder


def test_an_attempt_whose_folder_cannot_be_made_is_a_crash_that_counts(host: Host) -> None:
    job_id = host.post(small_pretraining(run={"max_restarts": 1}))
    run = run_folder(host.settings.runs_dir, job_id)
    run.parent.mkdir(parents=True, exist_ok=True)
    (run.parent / "elsewhere").mkdir()
    run.symlink_to(run.parent / "elsewhere")
    # As on a volume that is full or read-only: the folder of an attempt cannot be made.
    (run / "attempts").symlink_to("/proc/self/attempts")
    job = host.finish(job_id)
    assert job.state == "failed"
    assert [attempt.outcome for attempt in host.attempts_of(job_id)] == ["crashed", "crashed"]
    assert "the worker could not run it" in job.error["message"]
