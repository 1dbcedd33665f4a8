"""One scheduler at a time: reap what is lost, release what waited, place what fits."""
