"""Data sets that come with the product, drawn or bundled."""
