"""How much memory a piece of work holds at once on the CPU, by torch's profiler."""

from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile


def bytes_held(work: Callable[[], object]) -> int:
    """Most bytes of tensors that `work` holds at once beside those that were there, what operators make for themselves
    included."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    held = most = 0
    events = seen.profiler.kineto_results.events()  # type: ignore[union-attr]
    for event in sorted(events, key=lambda one: one.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most
