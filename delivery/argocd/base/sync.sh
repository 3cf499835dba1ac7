#!/bin/sh
# Makes dags/payment_audit of the environment's bucket equal to the DAGs of git: copies, repairs, removes. What Pulumi writes
# there (payment_audit.json) is left alone, and so is every other folder of the bucket.
set -eu
: "${BUCKET:?must name the bucket of the Composer environment (overlays/STACK/kustomization.yaml)}"
: "${SOURCE:?must be where the DAGs are mounted}"

# A ConfigMap is mounted as links to ..data, which is a link itself. rsync leaves links out: it would find nothing here, and
# remove every DAG from the bucket. So what they lead to is copied first.
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
cp -Lp "$SOURCE"/*.py "$tree/" 2>/dev/null || true
[ -s "$tree/operations.py" ] && [ "$(find "$tree" -name 'audit_*.py' -size +0c | wc -l)" -gt 0 ] || {
  echo "$SOURCE has no DAGs: the bucket is left as it is. Check the ConfigMap dags, and what its volume mounts." >&2
  exit 1
}

gcloud storage rsync "$tree" "gs://$BUCKET/dags/payment_audit" \
  --recursive --checksums-only --delete-unmatched-destination-objects --exclude='^payment_audit\.json$' --quiet
echo "gs://$BUCKET/dags/payment_audit has the $(find "$tree" -name '*.py' | wc -l | tr -d ' ') files of git."
