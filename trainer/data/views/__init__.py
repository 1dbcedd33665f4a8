"""The random views of an image: their draws as data, and their application."""
