# For the runbooks' cloud commands, in bash or zsh at the repository's top: `. runbooks/stack.sh prod`
# sets PROJECT, REGION, METADATA_INSTANCE and JOB (empty where none runs), and which stack ./audit talks to.
_stack=${1:?say which stack: dev, staging or prod}
_config() { sed -n "s/^  payment-audit:$1: *//p" "Pulumi.$_stack.yaml"; }
_output() { .venv/bin/python -c 'import json, os, sys; print(json.load(open(os.environ["AUDIT_CONNECTION"])).get(sys.argv[1], ""))' "$1"; }

PROJECT=$(_config project)
REGION=$(_config region)
[ -n "$REGION" ] || REGION=$(sed -n '/^  region:/,/default:/s/.*default: *//p' Pulumi.yaml)
export PROJECT REGION CLOUDSDK_CORE_PROJECT="$PROJECT" AUDIT_CONNECTION="$PWD/.audit/$_stack.json"
mkdir -p .audit
# The stack wrote it. The file of the last time stays where the bucket cannot be read.
if gcloud storage cat "gs://$PROJECT-templates/connection.json" > "$AUDIT_CONNECTION.new"; then mv "$AUDIT_CONNECTION.new" "$AUDIT_CONNECTION"; fi
METADATA_INSTANCE=$(_output metadataInstance)
[ -n "$METADATA_INSTANCE" ] || METADATA_INSTANCE=$(_output spannerInstance)
JOB=$(gcloud dataflow jobs list --region="$REGION" --status=active --filter=name=audit-stream-job --format='value(id)')
export METADATA_INSTANCE JOB
echo "$PROJECT in $REGION, job ${JOB:-none runs}"
