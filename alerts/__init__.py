"""The SLOs, the alerts that watch them and who is notified: plain data and pure functions, nothing from a cloud.

`metrics` (what can be watched) → `promql` (typed expressions) → `objectives` (SLOs, burn windows) → `catalog` (every
alert) → `rules` (Prometheus), `dashboards`; `routing` says who is notified of what. `thresholds` holds the numbers that
a stack's config sets. `components/monitoring.py` sends the same expressions to Cloud Monitoring.
"""
