"""What is promised and who is told when it is at risk: plain data and pure functions, nothing from a cloud.

`metrics` (what can be watched) → `promql` (typed expressions) → `objectives` (SLOs, burn windows) → `catalog` (every
alert) → `rules` (Prometheus), `dashboards`; `routing` says who hears of what. `thresholds` holds the numbers that a
stack's config sets. `components/monitoring.py` sends the same expressions to Cloud Monitoring.
"""
