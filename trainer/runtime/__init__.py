"""What every trainer process needs: ranks, synchronised BN, precision, seeds, checkpoints, stopping, watchdog."""
