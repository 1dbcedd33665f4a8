"""Named data sets, views as data, and threaded loading by (epoch, step)."""
