# For the runbooks' cloud commands, in bash or zsh at the repository's top: `. runbooks/stack.sh prod`
# sets what they name (below), JOB (empty where none runs), and which stack ./audit talks to.
_stack=${1:?say which stack: dev, staging or prod}
_config() { sed -n "s/^  payment-audit:$1: *//p" "Pulumi.$_stack.yaml"; }
_output() { .venv/bin/python -c 'import json, os, sys; print(json.load(open(os.environ["AUDIT_CONNECTION"])).get(sys.argv[1], ""))' "$1"; }

PROJECT=$(_config project)
REGION=$(_config region)
[ -n "$REGION" ] || REGION=$(sed -n '/^  region:/,/default:/s/.*default: *//p' Pulumi.yaml)
# In front of the names of Cloud Run's jobs and services, with its hyphen; empty where the stack has none.
PREFIX=$(_config prefix)
PREFIX=${PREFIX:+$PREFIX-}
export PROJECT REGION PREFIX CLOUDSDK_CORE_PROJECT="$PROJECT" AUDIT_CONNECTION="$PWD/.audit/$_stack.json"
mkdir -p .audit
# The stack wrote it. The file of the last time stays where the bucket cannot be read.
if gcloud storage cat "gs://$PROJECT-${PREFIX}templates/connection.json" > "$AUDIT_CONNECTION.new"; then mv "$AUDIT_CONNECTION.new" "$AUDIT_CONNECTION"; fi

# The source database, which may be of others; the audit's own metadata.
INSTANCE=$(_output spannerInstance)
DATABASE=$(_output spannerDatabase)
SOURCE_PROJECT=$(_output spannerProject)
SOURCE_PROJECT=${SOURCE_PROJECT:-$PROJECT}
METADATA_INSTANCE=$(_output metadataInstance)
METADATA_INSTANCE=${METADATA_INSTANCE:-$INSTANCE}
METADATA_DATABASE=$(_output metadataDatabase)
# The dataset of the views, the payments' changelog in BigQuery (dataset.table), and its dataset.
VIEWS=$(_output viewsDataset)
CHANGELOG=$(_output changelog)
TABLES=${CHANGELOG%%.*}
# The view of the job's log, the masking keys' secret, the key ring (its name is the same in each location).
JOB_LOG=$(_output jobLog)
MASKING_KEYS=$(_output maskingKeys)
KEY_RING=$(_output keyRing)
KEY_PROJECT=${KEY_RING#projects/}
KEY_PROJECT=${KEY_PROJECT%%/*}
KEY_RING=${KEY_RING##*/}
JOB_NAME=$(_output jobName)
JOB=$(gcloud dataflow jobs list --region="$REGION" --status=active --filter="name=$JOB_NAME" --format='value(id)')
export INSTANCE DATABASE SOURCE_PROJECT METADATA_INSTANCE METADATA_DATABASE VIEWS CHANGELOG TABLES JOB_LOG MASKING_KEYS
export KEY_RING KEY_PROJECT JOB_NAME JOB
echo "$PROJECT in $REGION, job ${JOB:-none runs}"
