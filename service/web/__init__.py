"""What every server of ours owes a browser, whichever it is."""
