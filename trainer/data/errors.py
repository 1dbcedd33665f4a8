"""What can be wrong with data."""


class DataError(ValueError):
    """Data that cannot be used as asked; the message names the fault and the remedy (outcome `bad_data`)."""
