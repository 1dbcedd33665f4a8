"""Detection and instance segmentation as an evaluation of a backbone (document 000, C.2)."""
