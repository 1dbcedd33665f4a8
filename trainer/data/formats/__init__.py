"""Images as they lie on disks: every format of datasets.yaml, and what of a folder is none of it."""
