"""`POST /v1/segment`: one image, many questions, masks for each."""
