"""The representation invariance score as an evaluation of a backbone (Goodfellow et al. 2009; Purushwalkam, Gupta
2020)."""
