"""The page at `/v1/segment/ui`: plain files that call the server's own routes."""
