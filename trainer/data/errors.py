"""What can be wrong with data."""


class DataError(ValueError):
    """Data that cannot be used as asked; the message names the fault and the remedy (outcome `bad_data`)."""


class SplitNotThere(DataError):
    """A split whose files are not there, of a data set that has others: no fault of it as a whole."""


class NothingReadable(DataError):
    """Not one image of a split can be read; raised after the ranks have agreed on it, so on all of them or none."""


class UnreadableImage(DataError):
    """One image that cannot be decoded: left out with a warning and counted, unlike data that is wrong as a whole."""

    def __init__(self, name: str, cause: str) -> None:
        """`name` says which image, as a user would find it: its path below the data set's folder."""
        super().__init__(f"{name} cannot be read: {cause}")
        self.name = name
        self.cause = cause
