"""One line per request, and the id that it is known by."""
