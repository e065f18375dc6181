"""What a process says of itself to tools: Prometheus metrics, OpenTelemetry traces, the loop's lag.

Knows those tools' libraries, imported only where they are used; no role, no engine, no HTTP framework.
"""
