"""Traces of OpenTelemetry: which frames and alerts are traced, and their spans, sent over OTLP (docs/tracing.md)."""
