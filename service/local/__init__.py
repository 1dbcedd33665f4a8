"""The whole stack on one machine from pip alone: real servers as child processes, nothing to install by hand."""
