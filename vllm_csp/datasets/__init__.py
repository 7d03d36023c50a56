"""Questions about photos, with what is right; a reader per format."""
