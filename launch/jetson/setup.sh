#!/bin/bash
# Sets up a Jetson for Pilotage: environment, ROS workspace, units, rules. Run it again at any time: what is right is
# left alone, what an integrator wrote (/etc/pilotage) is never overwritten.
#
#   sudo launch/jetson/setup.sh [--dry-run] [--enable fly|ros] [--map DIR] ...      (see --help)
#
# By the environment: PREFIX   everything is written below it, and the running system is left alone (staging, tests)
#                     PYTHON   the interpreter of the environment (the system's python3)
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
SOURCE=$(cd "$HERE/../.." && pwd)
PREFIX=${PREFIX:-}
PYTHON=${PYTHON:-/usr/bin/python3}
HOME_DIR=/opt/pilotage # the units name it: it is no choice
ENABLE=none MAP='' JETPACK='' DRY_RUN=no REALTIME=no CLOCKS=no GSTREAMER=no CONTAINER=no ROS=auto

usage() {
    cat <<'HELP'
usage: sudo launch/jetson/setup.sh [options]

  --dry-run        say what would be done, do nothing
  --enable WHICH   start at boot: fly (`pilotage fly`, no ROS) or ros (the launch file); else neither
  --map DIR        check this region map and copy it to /var/lib/pilotage/map
  --ros, --no-ros  insist on the ROS workspace, or leave it out; else it is built where ROS is installed
  --gstreamer      build OpenCV with GStreamer into the environment (an hour or so), for CSI cameras without ROS
  --realtime       real-time round robin for the units (see scheduling.conf)
  --clocks         jetson_clocks at every boot
  --jetpack N      6 or 7, where it cannot be found out
  --container      in an image: no units, no rules, no user
HELP
}

say() { echo "== $*"; }
note() { echo "   $*"; }
fail() {
    echo "setup.sh: $*" >&2
    exit 2
}

# A command that changes something. A dry run shows it only.
run() {
    if [ "$DRY_RUN" = yes ]; then
        printf '   would run:'
        printf ' %q' "$@"
        echo
    else
        "$@"
    fi
}

# The same for what acts on the running system: not with a PREFIX either.
on_system() {
    if [ -n "$PREFIX" ]; then
        note "left out under PREFIX: $*"
    else
        run "$@"
    fi
}

# put FILE TARGET [MODE]: a file is only written where it differs, whole or not at all.
put() {
    local file=$1 target="$PREFIX$2" mode=${3:-0644}
    if cmp -s "$file" "$target" && [ "$(stat -c %a "$target")" = "${mode#0}" ]; then
        note "as it should be: $2"
        return
    fi
    CHANGED=yes
    if [ "$DRY_RUN" = yes ]; then
        note "would write: $2"
        return
    fi
    install -D -m "$mode" "$file" "$target.new"
    mv -f "$target.new" "$target"
    note "written: $2"
}

# The same, but what is there stays: it is the integrator's.
put_once() {
    if [ -e "$PREFIX$2" ]; then
        note "kept: $2"
    else
        put "$@"
    fi
}

# ---- what machine is this

detect() {
    local release="$PREFIX/etc/nv_tegra_release" major=''
    if [ -z "$JETPACK" ]; then
        [ -r "$release" ] && major=$(sed -n '1s/^# R\([0-9]*\) .*/\1/p' "$release")
        case $major in
            36) JETPACK=6 ;;
            38 | 39) JETPACK=7 ;;
            '') JETPACK=$(dpkg-query -W -f '${Version}' nvidia-jetpack 2>/dev/null | cut -d. -f1) || true ;;
            *) fail "Jetson Linux R$major; expected R36 (JetPack 6) or R38, R39 (JetPack 7); flash one of these" ;;
        esac
    fi
    case $JETPACK in
        6) UBUNTU=22.04 PYTHON_IS=3.10 CUDA=12.6 TENSORRT=10.3 DISTRO=humble ;;
        7) UBUNTU=24.04 PYTHON_IS=3.12 CUDA=13 TENSORRT=10.13 DISTRO=jazzy ;;
        '') fail "no Jetson found (no /etc/nv_tegra_release, no nvidia-jetpack); name one: --jetpack 6 or 7" ;;
        *) fail "--jetpack: $JETPACK; expected 6 or 7" ;;
    esac
    say "JetPack $JETPACK: Ubuntu $UBUNTU, Python $PYTHON_IS, CUDA $CUDA, TensorRT $TENSORRT, ROS 2 $DISTRO are expected"
    local here
    here=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || fail "no Python: $PYTHON"
    case $here in
        3.10 | 3.11 | 3.12) ;;
        *) fail "Python of $PYTHON: $here; expected 3.10 to 3.12; name another: PYTHON=/path/to/python3" ;;
    esac
    [ "$here" = "$PYTHON_IS" ] || note "Python is $here, not $PYTHON_IS: TensorRT and ROS of the system cannot be used by it"
    if [ -r "$PREFIX/etc/os-release" ]; then
        local version
        version=$(sed -n 's/^VERSION_ID="\{0,1\}\([0-9.]*\)"\{0,1\}$/\1/p' "$PREFIX/etc/os-release")
        [ "$version" = "$UBUNTU" ] || note "the system is ${version:-unknown}, not Ubuntu $UBUNTU"
    fi
    CORES=$(nproc --all)
    ROS_SETUP="$PREFIX/opt/ros/$DISTRO/setup.bash"
    if [ "$ROS" != no ] && [ ! -r "$ROS_SETUP" ]; then
        [ "$ROS" = auto ] || fail "no ROS 2: $ROS_SETUP; expected ros-$DISTRO-ros-base; install it, or leave --ros out"
        ROS=no
        note "no ROS 2 $DISTRO is installed: \`pilotage fly\` does without"
    fi
}

# ---- packages of the system

install_packages() {
    say "packages"
    local wanted=(python3-venv python3-dev build-essential) missing=() name
    [ "$ROS" = no ] || wanted+=(python3-colcon-common-extensions)
    [ "$GSTREAMER" = no ] || wanted+=(cmake libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev)
    for name in "${wanted[@]}"; do
        dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || missing+=("$name")
    done
    if [ ${#missing[@]} -eq 0 ]; then
        note "all there: ${wanted[*]}"
        return
    fi
    on_system apt-get update -qq
    on_system apt-get install -y --no-install-recommends "${missing[@]}"
}

# ---- the Python environment

# TensorRT and CUDA are JetPack's own. Without them fixes are found by ONNX Runtime on the CPU.
check_tensorrt() {
    say "TensorRT and CUDA"
    local found cuda=/usr/local/cuda
    EXTRA=''
    if found=$("$PYTHON" -c 'import tensorrt; print(tensorrt.__version__)' 2>/dev/null); then
        note "TensorRT $found"
        [ "$(printf '%s\n' "$TENSORRT" "$found" | sort -V | head -n 1)" = "$TENSORRT" ] ||
            note "older than $TENSORRT: not tried"
    else
        note "no TensorRT for $PYTHON: ONNX Runtime is used; to have it: sudo apt install nvidia-jetpack"
        return
    fi
    if [ -x $cuda/bin/nvcc ] && [ -r $cuda/include/curand.h ]; then
        export PATH="$cuda/bin:$PATH"
        EXTRA='[jetson]'
    else
        note "no nvcc or no curand.h below $cuda: the environment goes without pycuda; sudo apt install nvidia-jetpack"
    fi
}

make_environment() {
    say "environment $HOME_DIR/venv"
    local venv="$PREFIX$HOME_DIR/venv" wanted
    wanted=$("$PYTHON" -c 'import sys; print(sys.version)' | head -n 1)
    if [ "$("$venv/bin/python" -c 'import sys; print(sys.version)' 2>/dev/null | head -n 1)" = "$wanted" ] &&
        [ -e "$venv/.made" ]; then
        note "there already: Python ${wanted%% *}"
    else
        run mkdir -p "$PREFIX$HOME_DIR"
        # TensorRT and rclpy are the system's.
        run "$PYTHON" -m venv --clear --system-site-packages "$venv"
        run touch "$venv/.made" # an interrupted one is made again
    fi
    install_ourselves "$venv"
    if [ "$GSTREAMER" = yes ] && ! has_gstreamer "$venv"; then
        run env CMAKE_ARGS='-DWITH_GSTREAMER=ON' "$venv/bin/python" -m pip install --disable-pip-version-check \
            --force-reinstall --no-deps --no-binary opencv-python-headless opencv-python-headless
    fi
    [ "$DRY_RUN" = yes ] || note "pilotage $("$venv/bin/pilotage" version), $(numbers "$venv")"
}

# From a copy, so that root leaves nothing in the checkout; only where the source is another than last time.
install_ourselves() {
    local venv=$1 copy rooms=(onboard training export calibration pyproject.toml README.md LICENSE) wanted
    wanted="$EXTRA $(cd "$SOURCE" && find "${rooms[@]}" -type f -not -path '*/__pycache__/*' -print0 |
        sort -z | xargs -0 sha256sum | sha256sum)"
    if [ "$(cat "$venv/.installed" 2>/dev/null)" = "$wanted" ]; then
        note "as it should be: pilotage$EXTRA"
        return
    fi
    if [ "$DRY_RUN" = yes ]; then
        note "would install: pilotage$EXTRA of $SOURCE"
        return
    fi
    copy=$(mktemp -d)
    (cd "$SOURCE" && cp -r "${rooms[@]}" "$copy/")
    "$venv/bin/python" -m pip install --disable-pip-version-check --quiet "$copy"
    # pycuda is compiled here: thousands of lines, of which the last ones tell what is missing.
    if [ -n "$EXTRA" ] && ! "$venv/bin/python" -m pip install --disable-pip-version-check --quiet "$copy$EXTRA" \
        >"$venv/pycuda.log" 2>&1; then
        note "pycuda could not be built, see the end of $venv/pycuda.log: ONNX Runtime is used"
        wanted="without $wanted" # tried again the next time
    fi
    rm -rf "$copy"
    echo "$wanted" >"$venv/.installed"
}

has_gstreamer() {
    "$1/bin/python" -c 'import cv2, sys; sys.exit(not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER))' 2>/dev/null
}

numbers() {
    "$1/bin/python" -c 'import cv2, numpy, onnxruntime
print("NumPy", numpy.__version__ + ", OpenCV", cv2.__version__ + ", ONNX Runtime", onnxruntime.__version__)'
}

# ---- the ROS workspace

build_workspace() {
    say "ROS workspace $HOME_DIR/ros"
    local base="$PREFIX$HOME_DIR"
    if [ "$ROS" = no ]; then
        note "left out"
        return
    fi
    # colcon run by the environment's Python writes it into the node's first line: that is how the node finds us.
    # shellcheck disable=SC2016 # expanded by the inner shell
    run bash -c 'set -e; . "$1"; cd "$2"; shift 2; exec "$@"' build "$ROS_SETUP" "$SOURCE/ros2_ws" \
        "$base/venv/bin/python" -m colcon --log-base "$base/build/log" build \
        --build-base "$base/build" --install-base "$base/ros"
    put "$HERE/pilotage-ros" "$HOME_DIR/bin/pilotage-ros" 0755
    [ "$DRY_RUN" = no ] || return 0
    grep -q "^#!.*$HOME_DIR/venv/bin/python" "$base/ros/pilotage_ros/lib/pilotage_ros/pilotage" ||
        fail "the node would not run in $HOME_DIR/venv; remove $HOME_DIR/build and $HOME_DIR/ros, then run setup.sh again"
    # rclpy is built for the system's NumPy, ours is newer: an import shows whether they get on.
    # shellcheck disable=SC2016
    bash -c '. "$1"; exec "$2" -c "import rclpy, sensor_msgs.msg, onboard.localizer"' check "$base/ros/setup.bash" \
        "$base/venv/bin/python" || fail "rclpy and the environment do not get on; see the lines above"
    note "node and launch files are built"
}

# ---- what flies with it

# Only where there is TensorRT and this version of the program has the command: an engine is built on the board that
# flies it. One that is there and fits is not built again; without one ONNX Runtime is used.
build_engine() {
    say "engine"
    local venv="$PREFIX$HOME_DIR/venv" folder="$PREFIX/var/lib/pilotage/engines" model
    if [ -z "$EXTRA" ] || ! "$venv/bin/pilotage" export engine --help >/dev/null 2>&1; then
        note "ONNX Runtime with the shipped model: there is nothing to build"
        return
    fi
    model=$("$venv/bin/python" -c 'from onboard.engine import SHIPPED_MODEL; print(SHIPPED_MODEL)')
    run mkdir -p "$folder"
    run "$venv/bin/pilotage" export engine "$model" --out "$folder" || note "no engine was built: ONNX Runtime is used"
}

check_map() {
    say "map"
    local pilotage="$PREFIX$HOME_DIR/venv/bin/pilotage" target="$PREFIX/var/lib/pilotage/map"
    if [ -n "$MAP" ]; then
        [ -d "$MAP" ] || fail "--map: $MAP; expected a folder made by \`pilotage map build\`"
        run "$pilotage" map info --verify "$MAP"
        if [ -d "$target" ] && diff -rq "$MAP" "$target" >/dev/null; then
            note "there already: /var/lib/pilotage/map"
        else
            run rm -rf "$target.new"
            run mkdir -p "$(dirname "$target")"
            run cp -r "$MAP" "$target.new"
            run rm -rf "$target"
            run mv "$target.new" "$target"
        fi
    elif [ -d "$target" ]; then
        run "$pilotage" map info --verify "$target"
    else
        note "none yet: copy one to /var/lib/pilotage/map, or give --map DIR"
    fi
}

# ---- units, rules, user

make_user() {
    say "user pilotage"
    if id pilotage >/dev/null 2>&1; then
        note "there already"
    else
        on_system useradd --system --home-dir /var/lib/pilotage --shell /usr/sbin/nologin pilotage
    fi
}

put_units() {
    say "units and rules"
    local scheduling
    CHANGED=no
    put_once "$HERE/units/pilotage.env" /etc/pilotage/pilotage.env
    put_once "$HERE/units/config.yaml" /etc/pilotage/config.yaml
    put "$HERE/units/pilotage-fly.service" /etc/systemd/system/pilotage-fly.service
    put "$HERE/units/pilotage-ros.service" /etc/systemd/system/pilotage-ros.service
    scheduling=$(mktemp)
    sed "s/^CPUAffinity=.*/CPUAffinity=2-$((CORES > 3 ? CORES - 1 : 3))/" "$HERE/units/scheduling.conf" >"$scheduling"
    [ "$REALTIME" = no ] || sed -i 's/^#\(CPUScheduling\)/\1/' "$scheduling"
    put "$scheduling" /etc/systemd/system/pilotage-.service.d/scheduling.conf
    rm -f "$scheduling"
    put "$HERE/units/journald.conf" /etc/systemd/journald.conf.d/pilotage.conf
    put "$HERE/units/tmpfiles.conf" /etc/tmpfiles.d/pilotage.conf
    put "$HERE/units/99-pilotage.rules" /etc/udev/rules.d/99-pilotage.rules
    put "$HERE/../README.md" "$HOME_DIR/share/README.md"
    [ "$CLOCKS" = no ] || put "$HERE/units/pilotage-clocks.service" /etc/systemd/system/pilotage-clocks.service
    if [ "$CHANGED" = yes ]; then
        on_system systemctl daemon-reload
        on_system systemctl restart systemd-journald
        on_system systemd-tmpfiles --create /etc/tmpfiles.d/pilotage.conf
        on_system udevadm control --reload
        on_system udevadm trigger --subsystem-match=tty
    fi
}

# A login prompt on the flight controller's line would talk back to it.
free_the_line() {
    say "serial line"
    if [ -z "$PREFIX" ] && systemctl is-enabled --quiet nvgetty 2>/dev/null; then
        on_system systemctl disable --now nvgetty
    else
        note "no login prompt on it"
    fi
}

enable_unit() {
    case $ENABLE in
        fly) on_system systemctl disable --quiet pilotage-ros.service ;;
        ros) on_system systemctl disable --quiet pilotage-fly.service ;;
        none)
            note "nothing starts at boot: --enable fly or --enable ros, when the first flight check-list is done"
            return
            ;;
    esac
    on_system systemctl enable "pilotage-$ENABLE.service"
    note "start it with: sudo systemctl start pilotage-$ENABLE; see it with: journalctl -fu pilotage-$ENABLE"
}

advise() {
    say "power and clocks"
    if command -v nvpmodel >/dev/null 2>&1; then
        note "$(nvpmodel -q 2>/dev/null | tr '\n' ' ')"
    fi
    note "modes: grep POWER_MODEL /etc/nvpmodel.conf; take the one with all cores that battery and cooling stand:"
    note "sudo nvpmodel -m N. Frequencies that do not change give a latency that does not either: sudo jetson_clocks"
    if [ "$CLOCKS" = yes ]; then
        on_system systemctl enable pilotage-clocks.service
    else
        note "(at every boot: setup.sh --clocks)"
    fi
}

# ---- in this order

need() { [ $# -ge 2 ] || fail "$1 needs a value; see --help"; }
while [ $# -gt 0 ]; do
    case $1 in
        --dry-run) DRY_RUN=yes ;;
        --enable) need "$@" && ENABLE=$2 && shift ;;
        --map) need "$@" && MAP=$2 && shift ;;
        --jetpack) need "$@" && JETPACK=$2 && shift ;;
        --ros) ROS=yes ;;
        --no-ros) ROS=no ;;
        --gstreamer) GSTREAMER=yes ;;
        --realtime) REALTIME=yes ;;
        --clocks) CLOCKS=yes ;;
        --container) CONTAINER=yes ;;
        -h | --help) usage && exit 0 ;;
        *) fail "unknown option $1; see --help" ;;
    esac
    shift
done
case $ENABLE in fly | ros | none) ;; *) fail "--enable: $ENABLE; expected fly or ros" ;; esac

detect
if [ "$DRY_RUN" = no ] && [ -z "$PREFIX" ] && [ "$(id -u)" -ne 0 ]; then
    fail "not root; expected sudo; or look first: launch/jetson/setup.sh --dry-run"
fi
install_packages
check_tensorrt
make_environment
build_workspace
build_engine
check_map
if [ "$CONTAINER" = no ]; then
    make_user
    put_units
    free_the_line
    enable_unit
    advise
fi
say "done"
