"""A batch on a Ray cluster: an engine in each actor of a Ray Data job, one journal."""
