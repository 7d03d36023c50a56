"""A Grafana dashboard of a server: `vllm_csp.json` beside this file, made by `build.py`."""
