"""Backups of BigQuery: snapshots of one moment and exports, a restore of either, and the drill that tries one."""
