"""Jobs compared as one page to look at: metrics over steps, spectra and correlation matrices, scores.

The page needs nothing but itself: neither the service nor the network.
"""

GENERATOR = "Barlow Lab, jobs compared"
"""What a page says that it was made by, near its beginning."""
