"""Detection and instance segmentation as an evaluation of a backbone (Zbontar et al. 2021, C.2)."""
