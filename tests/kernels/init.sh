#!/busybox sh
# The first process of the virtual machine that `cargo xtask kernels` boots. What it writes to the second serial port is read by
# xtask/src/kernels/report.rs; the first one has the kernel's own messages.
#
# Called three times: as the first process in the initramfs; from there, `inside`, on a file system that containers can leave with
# pivot_root (they cannot leave the initramfs); and with `refuses`, for the test of that name.
# Pure tests know no kernel: a few cases of each will do.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root RUST_BACKTRACE=0 PROPTEST_CASES=8

say() { printf '@@ %s\n' "$*" >/dev/ttyS1; }

seconds() { cut -d' ' -f1 /proc/uptime; }

leave_initramfs() {
    /busybox mkdir /new
    /busybox mount -t tmpfs -o size=80%,mode=755 root /new
    for entry in /*; do
        case $entry in
            /new) ;;
            # Still needed here: what leaves is asked for its own path.
            /busybox | /init) /busybox cp "$entry" /new/ ;;
            # Moved file by file, or there would have to be memory for all of it twice.
            *) /busybox mv "$entry" /new/ ;;
        esac
    done
    exec /busybox switch_root /new /init inside
}

mounts() {
    /busybox mkdir -p /bin /proc /sys /dev /tmp /run /root /etc /var/lib
    /busybox mount -t proc proc /proc
    /busybox --install -s /bin
    mount -t sysfs sys /sys
    mount -t devtmpfs dev /dev
    mkdir -p /dev/pts /dev/shm
    mount -t devpts pts /dev/pts
    mount -t tmpfs shm /dev/shm
    mount -t tmpfs tmp /tmp
    mount -t tmpfs run /run
    mount -t bpf bpf /sys/fs/bpf
    mount -t cgroup2 cgroup /sys/fs/cgroup
    ln -sf /proc/self/fd /dev/fd
    mkdir -p /run/netns
}

# The end of what a test printed, each line marked, so that nothing in it is taken for a report. The verifier's last words are at the
# end of a line of a megabyte.
quote() { tail -c 4000 "$1" | sed 's/^/@| /' >/dev/ttyS1; echo >/dev/ttyS1; }

# one NAME COMMAND...: runs it with the time that a test has, and reports.
one() {
    name=$1
    shift
    said=$(mktemp /tmp/said.XXXXXX)
    say "begin $name"
    began=$(seconds)
    timeout -s KILL "$LIMIT" "$@" >"$said" 2>&1 </dev/null
    code=$?
    case $code in
        0) result=pass ;;
        # 128 and the signal's number: its time was over.
        137) result=late ;;
        *) result=fail ;;
    esac
    # A test that did not run is no test that passed.
    if [ $result = pass ] && grep -q '^running ' "$said" && ! grep -q '^test result: ok. 1 passed' "$said"; then
        result=ignored
    fi
    # The other worker must not report in between.
    {
        flock 9
        case $result in fail | late) quote "$said" ;; esac
        say "end $result $began $(seconds) $name"
    } 9>/tmp/lock
    rm -f "$said"
}

# The daemon must refuse to start, and name what is missing.
refuses() {
    code=0
    "$@" >/tmp/refusal 2>&1 || code=$?
    cat /tmp/refusal
    [ $code -ne 0 ] && grep -q 'this kernel lacks .*CONFIG_' /tmp/refusal
}

# But for the one that asks for a rate which no emulated machine reaches.
tests_of() { "$1" --list --format terse 2>/dev/null | sed -n 's/: test$//p' | grep -v '^a_real_haproxy'; }

chosen() { [ -z "$ONLY" ] || case "$1" in *"$ONLY"*) ;; *) return 1 ;; esac; }

load_modules() {
    while read -r module; do
        insmod "/modules/$module" 2>/tmp/refused || { say "note $module cannot be loaded"; quote /tmp/refused; }
    done </modules/order
}

# Every second test of the list, beginning with the first or the second.
worker() {
    turn=$1
    while read -r binary test; do
        turn=$((turn + 1))
        [ $((turn % 2)) -eq 1 ] || one "${binary##*/} $test" "$binary" --include-ignored --exact "$test"
    done </tmp/list
}

all_tests() {
    if [ -x /usr/bin/skep ] && chosen "skep daemon"; then
        one "skep daemon says what a kernel without modules lacks" sh /init refuses /usr/bin/skep daemon
    fi
    load_modules
    for binary in /tests/*; do
        for test in $(tests_of "$binary"); do
            if chosen "${binary##*/} $test"; then echo "$binary $test"; fi
        done
    done >/tmp/list
    # As many at a time as the machine has processors.
    worker 0 &
    worker 1 &
    wait
    if [ -x /usr/bin/skep ] && chosen "skep demo"; then
        one "skep demo" /usr/bin/skep demo --nodes 2
    fi
}

case "${1:-}" in
    refuses) shift; refuses "$@"; exit ;;
    inside) ;;
    *) leave_initramfs ;;
esac
mounts
# LIMIT: seconds for one test. ONLY: part of the names of those to run.
. /settings
stty -F /dev/ttyS1 raw
ip link set lo up
say "kernel $(uname -r)"
all_tests
# What the kernel did not like, however the tests saw it.
dmesg | grep -E 'BUG:|WARNING:|Oops|RIP:|soft lockup|rcu.*stall|Out of memory' >/tmp/trouble && { say trouble; quote /tmp/trouble; }
say finished
poweroff -f
