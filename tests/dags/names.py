"""The names that Pulumi's side of Argo CD and the manifests must have in common."""

ACCOUNT = "dag-sync-sa"
NAMESPACE = "payment-audit-{stack}"
FOLDER = "dags/payment_audit/"
