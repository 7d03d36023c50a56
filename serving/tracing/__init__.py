"""OpenTelemetry spans of requests, by what vLLM sets up for `--otlp-traces-endpoint`."""
