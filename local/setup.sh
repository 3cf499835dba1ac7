#!/usr/bin/env bash
# Installs everything that `make run` needs, and checks what it cannot install. What is there already is left alone: each
# part has a stamp with the checksum of the file that pins it. What clones can share is in the cache.
# `setup.sh pulumi` installs the Pulumi CLI as well, which only the tests need.
# `setup.sh monitoring` adds Prometheus and Alertmanager: the tests and the local stack's monitoring need them.
# `setup.sh browser` adds Chromium, in which the console is tested: only the tests need it.
# `setup.sh dags` adds the two versions of Airflow, 3 GB, and kustomize: only `make test-dags` needs them.
# `setup.sh check` installs nothing: it names what is missing, and then fails.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/payment-audit
uv_version=0.13.9
beam_version=$(sed -n 's|.*github.com/apache/beam/sdks/v2 v||p' "$root/local/prism/go.mod")
pulumi_version=$(sed -n 's|.*github.com/pulumi/pulumi/pkg/v3 v||p' "$root/local/pulumi/cli/go.mod")
alertmanager_version=$(sed -n 's|.*github.com/prometheus/alertmanager v||p' "$root/local/alertmanager/go.mod")
emulator_version=$(sed -n 's/^local-bigquery==//p' "$root/local/emulators/bigquery.lock")

venv=$root/.venv
uv_home=$cache/uv
emulator_home=$cache/bigquery-emulator-$emulator_version
prism_home=$cache/prism-$beam_version
pulumi_home=$cache/pulumi-$pulumi_version
prometheus_home=$cache/prometheus
alertmanager_home=$cache/alertmanager-$alertmanager_version
airflow_lock() { printf '%s\n' "$root/tests/dags/airflow-$1.lock"; }
airflow_home() { printf '%s\n' "$cache/airflow-$(sed -n 's/^apache-airflow==//p' "$(airflow_lock "$1")")"; }
uv=$uv_home/bin/uv

say() { printf '%s\n' "$*" >&2; }
fail() { say "make setup: $*"; exit 1; }

# A part (folder, program in it, pin) is done when the program runs and its stamp holds the pin: the checksum of the files
# that say what is to be installed.
pin() { cat "$@" | cksum; }
is_done() { [ -x "$1/$2" ] && [ -f "$1/.stamp" ] && [ "$(cat "$1/.stamp")" = "$3" ]; }
mark_done() { printf '%s\n' "$3" >"$1/.stamp"; }

uv_part=("$uv_home" bin/uv "$uv_version")
venv_part=("$venv" bin/python "$(pin "$root/requirements.lock" "$root/pyproject.toml")")
emulator_part=("$emulator_home" bin/python "$(pin "$root/local/emulators/bigquery.lock")")
# Any version from this one on evaluates our rules; Debian 12 has 2.42.
prometheus_part=("$prometheus_home" promtool ">= 2.42")
alertmanager_part=("$alertmanager_home" amtool "$(pin "$root"/local/alertmanager/go.{mod,sum})")
airflow2_part=("$(airflow_home 2)" bin/python "$(pin "$(airflow_lock 2)")")
airflow3_part=("$(airflow_home 3)" bin/python "$(pin "$(airflow_lock 3)")")
kustomize_home=$cache/kustomize-$(sed -n 's|.*sigs.k8s.io/kustomize/kustomize/v5 v||p' "$root/local/kustomize/go.mod")
kustomize_part=("$kustomize_home" kustomize "$(pin "$root"/local/kustomize/{go.mod,go.sum,schemas.txt})")
prism_part=("$prism_home" prism "$(pin "$root"/local/prism/go.{mod,sum})")
pulumi_part=("$pulumi_home" bin/pulumi "$(pin "$root"/local/pulumi/{cli,language}/go.{mod,sum})")

# The real path of a Python of that version: on PATH, of pyenv, or else one that uv fetches.
python() {
  local candidate path
  for candidate in "python$1" python3 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python; do
    path=$("$candidate" -c 'import sys
print(sys.executable if sys.argv[1] == "%d.%d" % sys.version_info[:2] else "")' "$1" 2>/dev/null) || continue
    [ -z "$path" ] || { printf '%s\n' "$path"; return; }
  done
  if ! path=$("$uv" python find --no-project "$1" 2>/dev/null); then
    say "  Python $1 is not here: uv fetches it"
    "$uv" python install --quiet "$1" || fail "Python $1 is needed and could not be fetched. Install it so that python$1 is on PATH."
    path=$("$uv" python find --no-project "$1")
  fi
  printf '%s\n' "$path"
}

install_uv() {
  is_done "${uv_part[@]}" && return
  say "uv $uv_version …"
  local candidate
  for candidate in python3 python3.13 python3.12 python3.11 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[1-9].*/bin/python; do
    rm -rf "$uv_home"
    if "$candidate" -m venv "$uv_home" >"$cache/uv.log" 2>&1 && [ -x "$uv_home/bin/pip" ]; then
      "$uv_home/bin/pip" install --quiet --disable-pip-version-check "uv==$uv_version" >"$cache/uv.log" 2>&1 ||
        fail "uv $uv_version could not be installed with pip; see $cache/uv.log. Check the network and pip's index."
      mark_done "${uv_part[@]}"
      return
    fi
  done
  fail "no Python 3 with the venv module is on PATH. Install Python 3.11 (on Debian and Ubuntu also python3-venv)."
}

install_venv() {
  is_done "${venv_part[@]}" && return
  say "Python environment .venv …"
  local interpreter
  if [ ! -x "$venv/bin/python" ]; then
    interpreter=$(python 3.11)
    "$uv" venv --quiet --clear --python "$interpreter" "$venv"
  fi
  # Nothing is resolved: the lock says it all, and the project itself is installed so that edits take effect.
  (cd "$root" && echo "-e ." | "$uv" pip sync --quiet --python "$venv/bin/python" requirements.lock -)
  mark_done "${venv_part[@]}"
  say "Python environment .venv: ready after ${SECONDS} s"
}

install_emulator() {
  is_done "${emulator_part[@]}" && return
  say "BigQuery emulator $emulator_version, in its own environment …"
  local interpreter
  interpreter=$(python 3.13)
  rm -rf "$emulator_home"
  "$uv" venv --quiet --python "$interpreter" "$emulator_home"
  "$uv" pip install --quiet --no-deps --python "$emulator_home/bin/python" -r "$root/local/emulators/bigquery.lock"
  mark_done "${emulator_part[@]}"
  say "BigQuery emulator: ready after ${SECONDS} s"
}

# Airflow, each version in its own environment, and its empty metadata database, of which each run of the tests has a copy.
install_airflow() {
  local lock part home
  case $1 in 2) part=("${airflow2_part[@]}") ;; *) part=("${airflow3_part[@]}") ;; esac
  is_done "${part[@]}" && return
  lock=$(airflow_lock "$1") home=${part[0]}
  say "Airflow ${home##*-} …"
  rm -rf "$home"
  "$uv" venv --quiet --python "$(python 3.11)" "$home"
  "$uv" pip sync --quiet --python "$home/bin/python" "$lock"
  AIRFLOW_HOME=$home/empty AIRFLOW__CORE__LOAD_EXAMPLES=False "$home/bin/airflow" db migrate >"$cache/airflow.log" 2>&1 ||
    fail "Airflow's database could not be made; the end of $cache/airflow.log:
$(tail -5 "$cache/airflow.log")"
  mark_done "${part[@]}"
  say "Airflow ${home##*-}: ready after ${SECONDS} s"
}

# Kustomize: on PATH, or built. Beside it the schemas that manifests are checked with, out of the modules of Argo CD and kubectl,
# each of which has the checksum that schemas.txt pins.
install_kustomize() {
  is_done "${kustomize_part[@]}" && return
  local found log=$cache/kustomize.log path version sum got
  command -v go >/dev/null || fail "the schemas of Argo CD and Kubernetes come with their Go modules: install Go from https://go.dev/dl."
  rm -rf "$kustomize_home"
  mkdir -p "$kustomize_home"
  while read -r path version sum; do
    got=$(cd "$root/local/kustomize" && go mod download -json "$path@$version" 2>"$log") ||
      fail "$path could not be fetched; see $log. Check the network and Go's module proxy (go env GOPROXY)."
    grep -q "\"Sum\": \"$sum\"" <<<"$got" || fail "$path $version is not what local/kustomize/schemas.txt pins."
    found=$(sed -n 's/.*"Dir": "\(.*\)".*/\1/p' <<<"$got")
    case $path in
      */argo-cd/*) install -m 644 "$found"/manifests/crds/{application,appproject}-crd.yaml "$kustomize_home/" ;;
      *) install -m 644 "$found/testdata/openapi/swagger.json" "$kustomize_home/kubernetes.json" ;;
    esac
  done <"$root/local/kustomize/schemas.txt"
  if found=$(command -v kustomize); then
    ln -s "$found" "$kustomize_home/kustomize"
  else
    say "kustomize: none on PATH, so it is built (half a minute, once) …"
    build kustomize sigs.k8s.io/kustomize/kustomize/v5 "$kustomize_home/kustomize" "$log" '-s -w' ||
      fail "kustomize could not be built; the end of $log:
$(tail -5 "$log")"
  fi
  mark_done "${kustomize_part[@]}"
  say "kustomize: ready after ${SECONDS} s"
}

# Prism: on PATH, or already downloaded by Beam, or Beam's release, or built from the Go module proxy.
install_prism() {
  is_done "${prism_part[@]}" && return
  mkdir -p "$prism_home"
  rm -f "$prism_home/prism"
  local found log=$cache/prism.log
  if found=$(command -v prism) && is_prism "$found"; then
    ln -s "$found" "$prism_home/prism"
  elif found=$(prism_of_beam) && is_prism "$found"; then
    ln -s "$found" "$prism_home/prism"
  elif download_prism "$log"; then
    :
  else
    build_prism "$log"
  fi
  mark_done "${prism_part[@]}"
  say "Prism, Beam's local runner: ready after ${SECONDS} s"
}

# Other programs have that name too.
is_prism() { "$1" -h 2>&1 | grep -q -e '-job_port'; }

prism_release() {
  local system machine
  system=$(uname -s | tr '[:upper:]' '[:lower:]')
  case $(uname -m) in x86_64 | amd64) machine=amd64 ;; *) machine=arm64 ;; esac
  echo "apache_beam-v$beam_version-prism-$system-$machine"
}

prism_of_beam() { ls "$HOME/.apache_beam/cache/prism/bin/$(prism_release)" 2>/dev/null; }

download_prism() {
  local name zip=$prism_home/prism.zip
  name=$(prism_release)
  command -v curl >/dev/null || return
  curl --silent --show-error --fail --location --connect-timeout 5 --max-time 300 --output "$zip" \
    "https://github.com/apache/beam/releases/download/v$beam_version/$name.zip" >"$1" 2>&1 || return
  "$uv_home/bin/python" -m zipfile -e "$zip" "$prism_home" && rm "$zip" || return
  mv "$prism_home/$name" "$prism_home/prism" && chmod +x "$prism_home/prism"
}

build_prism() {
  command -v go >/dev/null || fail "Prism $beam_version could not be downloaded (see $1) and there is no Go to build it.
Install Go from https://go.dev/dl, or put the binary from Beam's release page on PATH as prism."
  say "Prism, Beam's local runner: cannot be downloaded here, so it is built (2 to 3 minutes, once) …"
  build prism github.com/apache/beam/sdks/v2/go/cmd/prism "$prism_home/prism" "$1" '-s -w' ||
    fail "Prism could not be built; the end of $1:
$(tail -5 "$1")
Check the network and Go's module proxy (go env GOPROXY), or put Beam's prism binary on PATH."
}

# build MODULE PACKAGE OUTPUT LOG LDFLAGS: builds a program from one of our Go modules, and shows its progress.
build() {
  local builder next=$((SECONDS + 15)) name=${3##*/}
  (cd "$root/local/$1" && CGO_ENABLED=0 nice go build -v -ldflags "$5" -o "$3.part" "$2") >"$4" 2>&1 &
  builder=$!
  while kill -0 "$builder" 2>/dev/null; do
    sleep 0.5
    if [ "$SECONDS" -ge "$next" ]; then
      next=$((SECONDS + 15))
      say "  building $name: ${SECONDS} s, $(grep -c '^[a-z]' "$4" || true) packages compiled"
    fi
  done
  wait "$builder" || return
  mv "$3.part" "$3"
}

# The Pulumi CLI: on PATH, or built from the Go module proxy, with what it needs to run Python programs and policies.
install_pulumi() {
  is_done "${pulumi_part[@]}" && return
  local found log=$cache/pulumi.log
  rm -rf "$pulumi_home"
  mkdir -p "$pulumi_home/bin" "$pulumi_home/language"
  if found=$(command -v pulumi) && is_new_enough "$("$found" version 2>/dev/null)"; then
    # It has its language host and its policy analyzer beside it, and looks for them where the link leads.
    ln -s "$found" "$pulumi_home/bin/pulumi"
  else
    build_pulumi "$log"
  fi
  mark_done "${pulumi_part[@]}"
  say "Pulumi CLI: ready after ${SECONDS} s"
}

# The Automation API reports each resource from 3.206 on.
is_new_enough() { [ "$(printf '%s\n' v3.206.0 "$1" | sort -V | head -1)" = v3.206.0 ]; }

build_pulumi() {
  command -v go >/dev/null || fail "no pulumi 3.206 or newer is on PATH, and there is no Go to build it.
Install the Pulumi CLI (https://www.pulumi.com/docs/install), or Go from https://go.dev/dl."
  say "Pulumi CLI $pulumi_version: none on PATH, so it is built (about 10 minutes of CPU, once) …"
  local sdk=github.com/pulumi/pulumi/sdk/v3 host
  build pulumi/cli github.com/pulumi/pulumi/pkg/v3/cmd/pulumi "$pulumi_home/bin/pulumi" "$1" \
    "-s -w -X $sdk/go/common/version.Version=v$pulumi_version" || fail_pulumi "$1"
  # Beside the CLI it would also be asked to run policies, which this version of it cannot: it has its own folder.
  build pulumi/language "$sdk/python/cmd/pulumi-language-python" "$pulumi_home/language/pulumi-language-python" "$1" '-s -w' ||
    fail_pulumi "$1"
  host=$(cd "$root/local/pulumi/language" && go list -m -f '{{.Dir}}' "$sdk")/python
  install -m 755 "$host/cmd/pulumi-language-python-exec" "$pulumi_home/language/"
  install -m 755 "$host/dist/pulumi-analyzer-policy-python" "$pulumi_home/bin/"
}

fail_pulumi() {
  fail "the Pulumi CLI could not be built; the end of $1:
$(tail -5 "$1")
Check the network and Go's module proxy (go env GOPROXY), or install the Pulumi CLI (https://www.pulumi.com/docs/install)."
}

# Prometheus and promtool: on PATH, or Debian's package, unpacked here and not installed.
install_prometheus() {
  is_done "${prometheus_part[@]}" && return
  say "Prometheus …"
  rm -rf "$prometheus_home"
  mkdir -p "$prometheus_home"
  local name found log=$cache/prometheus.log
  : >"$log"
  for name in promtool prometheus; do
    if found=$(command -v "$name"); then
      ln -s "$found" "$prometheus_home/$name"
    else
      unpack_deb prometheus "$log" && ln -s "unpacked/usr/bin/$name" "$prometheus_home/$name"
    fi || fail "$name is not on PATH, and Debian's package could not be had; the end of $log:
$(tail -5 "$log")
Install Prometheus (https://prometheus.io/download, or your package manager) so that promtool and prometheus are on PATH.
Only the tests and the local stack's monitoring need them."
  done
  mark_done "${prometheus_part[@]}"
  say "Prometheus: ready after ${SECONDS} s"
}

# Alertmanager and amtool: on PATH, or built. Debian's package cannot be unpacked: it looks for its templates in /usr/share.
install_alertmanager() {
  is_done "${alertmanager_part[@]}" && return
  rm -rf "$alertmanager_home"
  mkdir -p "$alertmanager_home"
  local name found log=$cache/alertmanager.log
  for name in alertmanager amtool; do
    if found=$(command -v "$name" || { [ "$name" = alertmanager ] && command -v prometheus-alertmanager; }); then
      ln -s "$found" "$alertmanager_home/$name"
    else
      command -v go >/dev/null || fail "$name is not on PATH, and there is no Go to build it. Install Alertmanager
(https://prometheus.io/download, or your package manager), or Go from https://go.dev/dl. Only the tests and the local
stack's monitoring need it."
      say "$name: is built (a minute, once) …"
      build alertmanager "github.com/prometheus/alertmanager/cmd/$name" "$alertmanager_home/$name" "$log" '-s -w' ||
        fail "$name could not be built; the end of $log:
$(tail -5 "$log")"
    fi
  done
  mark_done "${alertmanager_part[@]}"
  say "Alertmanager: ready after ${SECONDS} s"
}

# Chromium: on PATH, or Debian's package. It cannot be unpacked beside the others: it needs a hundred libraries.
install_chromium() {
  has_chromium && return
  local log=$cache/chromium.log way='Install Chromium (your package manager has it) so that chromium is on PATH. Only the tests need it.'
  command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] || fail "Chromium is not on PATH, and only root can install it.
$way"
  say "Chromium …"
  { DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium fonts-dejavu-core ||
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium fonts-dejavu-core; }
  } >"$log" 2>&1 || fail "Chromium could not be installed; the end of $log:
$(tail -5 "$log")
$way"
  say "Chromium: ready after ${SECONDS} s"
}

has_chromium() { command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null; }

unpack_deb() {
  [ -d "$prometheus_home/unpacked/usr/share/doc/$1" ] && return
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || { echo "there is no apt-get here" >>"$2"; return 1; }
  mkdir -p "$prometheus_home/unpacked"
  # apt's lists may be missing or old: only then are they fetched, which needs to be root.
  (cd "$prometheus_home" && { apt-get download "$1" || { apt-get update && apt-get download "$1"; }; } &&
    dpkg-deb -x "$1"_*.deb unpacked && rm -f "$1"_*.deb) >>"$2" 2>&1
}

check_spanner_emulator() {
  command -v emulator_main >/dev/null && return
  local gcloud
  if gcloud=$(command -v gcloud); then
    [ ! -x "$(dirname "$(readlink -f "$gcloud")")/cloud_spanner_emulator/emulator_main" ] || return 0
  fi
  fail "the Spanner emulator is not installed, and only you can do that: install the Google Cloud CLI
(https://cloud.google.com/sdk/docs/install), then run
  gcloud components install cloud-spanner-emulator
or, where the CLI came with apt or dnf, install the package google-cloud-cli-spanner-emulator."
}

missing() {
  is_done "${venv_part[@]}" || echo ".venv"
  is_done "${emulator_part[@]}" || echo "BigQuery emulator"
  is_done "${prism_part[@]}" || echo "Prism"
  [ "${1:-}" != pulumi ] || is_done "${pulumi_part[@]}" || echo "Pulumi CLI"
  [ "${1:-}" != monitoring ] || is_done "${prometheus_part[@]}" || echo "Prometheus"
  [ "${1:-}" != monitoring ] || is_done "${alertmanager_part[@]}" || echo "Alertmanager"
  [ "${1:-}" != browser ] || has_chromium || echo "Chromium"
  [ "${1:-}" != dags ] || is_done "${airflow2_part[@]}" || echo "Airflow 2"
  [ "${1:-}" != dags ] || is_done "${airflow3_part[@]}" || echo "Airflow 3"
  [ "${1:-}" != dags ] || is_done "${kustomize_part[@]}" || echo "kustomize"
}

main() {
  check_spanner_emulator
  local lacks
  lacks=$(missing "$@")
  [ -n "$lacks" ] || return 0
  [ "${1:-}" != check ] || fail "not installed, or not as the lock files say: $(echo "$lacks" | paste -s -d , -)."
  mkdir -p "$cache"
  # Two clones may be set up at once: the second waits for the first.
  if command -v flock >/dev/null; then
    exec 9>"$cache/lock"
    flock 9
  fi
  install_uv
  local parts=() failed=0 part
  { install_prism; [ "${1:-}" != pulumi ] || install_pulumi; } & parts+=($!)
  { install_venv; install_emulator; } & parts+=($!)
  for part in "${parts[@]}"; do wait "$part" || failed=1; done
  [ "$failed" = 0 ] || exit 1
  [ "${1:-}" != monitoring ] || { install_prometheus; install_alertmanager; }
  [ "${1:-}" != browser ] || install_chromium
  [ "${1:-}" != dags ] || { install_kustomize; install_airflow 2; install_airflow 3; }
  say "Set up in ${SECONDS} s."
}

main "$@"
