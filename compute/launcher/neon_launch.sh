#!/bin/sh
# The one program that the compute host may run. It starts Postgres under the lazy file library, and
# signals and looks at processes, so that the host itself needs neither to run other programs nor to
# read /proc.
#
#   start [--wait] [--library FILE] PGDATA LOGFILE ARENA BINDIR UID GID -- [postgres arguments]
#       Becomes BINDIR/postgres -D PGDATA ...: the process id stays the caller's child's. It becomes
#       UID and GID first, which only root can (- keeps the caller's). Output is appended to LOGFILE.
#       ARENA "-" runs it without lazy files. The library is FILE, or neon_lazy_files.so beside this
#       script, or the prebuilt one in the source tree. TZ is passed on; the rest of the environment
#       is not. With --wait everything is done but the last step: more settings (NAME=VALUE) come on
#       standard input, one a line, and an empty line starts Postgres. Without that one, exit 67.
#   spare
#       Waits for what "start --wait" is told, on standard input, one a line: FILE (- for none), PGDATA,
#       LOGFILE, ARENA, BINDIR, UID, GID. Then it is as if it had been called so. So it can be there
#       before it is needed. Without them, exit 67.
#   release PGDATA BINDIR UID GID
#       Gives back the shared memory of a Postgres that was killed in PGDATA. Exit 1 if that cannot be,
#       as while one of its processes lives.
#   signal NAME PID STARTTIME
#       Sends NAME (TERM, INT, QUIT, KILL, HUP, STOP, CONT) to PID if that is still the process that
#       started at STARTTIME (as probe prints it). Exit 3 if it is not.
#   probe PID
#       Prints "alive STARTTIME postgres", "alive STARTTIME other" or "dead". STARTTIME is field 22
#       of /proc/PID/stat: clock ticks from boot to the start of the process.
#   boot-id
#       Prints the id of this boot of the machine.
#   guard PIDFILE ENDPOINTS LOOK LIMIT
#       Stops the Postgres of every ENDPOINTS/NAME/pgdata when the compute host, which holds a lock on
#       PIDFILE while it lives, has been gone for LIMIT seconds: without it they go on answering
#       reads, perhaps long after somebody else writes the timeline. Looks every LOOK seconds. Ends
#       after that, or when the host has ended in an orderly way (PIDFILE says "stopped", or is gone),
#       or at once if another guard watches PIDFILE.
#
# Exit 64: wrong arguments. Exit 66: something needed is missing.
set -u
umask 077

fail() {
    code=$1
    shift
    echo "neon_launch: $*" >&2
    exit "$code"
}

is_number() {
    case $1 in '' | *[!0-9]*) return 1 ;; esac
}

# Sets found_start and found_name of process $1. Fails if there is none, or only a zombie.
find_process() {
    is_number "$1" || fail 64 "not a process id: $1"
    [ -d /proc/self ] || {
        find_process_by_ps "$1"
        return
    }
    stat=
    { IFS= read -r stat <"/proc/$1/stat"; } 2>/dev/null || [ -n "$stat" ] || return 1
    # "123 (the name) S 1 ...": the name may hold spaces and parentheses.
    found_name=${stat#*\(}
    found_name=${found_name%\)*}
    # shellcheck disable=SC2086
    set -- ${stat##*\) }
    case $1 in Z | X) return 1 ;; esac
    shift 19
    found_start=$1
}

# The same where there is no /proc (macOS): the start is a moment, such as Sat_Nov_21_17:46:14_2026.
find_process_by_ps() {
    case $(ps -o stat= -p "$1") in '' | Z*) return 1 ;; esac
    found_start=$(ps -o lstart= -p "$1" | sed 's/^ *//; s/ *$//' | tr -s ' ' '_')
    found_name=$(ps -o comm= -p "$1")
    found_name=${found_name##*/}
    [ -n "$found_start" ]
}

find_library() {
    here=$(cd "$(dirname "$0")" && pwd -P) || fail 66 "cannot find my own directory"
    case $(uname -m) in x86_64) platform=linux-x64 ;; *) platform=linux-arm64 ;; esac
    for library in "$here/neon_lazy_files.so" \
        "$here/../lazy_files/prebuilt/$platform/neon_lazy_files.so"; do
        [ -r "$library" ] && return
    done
    fail 66 "cannot find neon_lazy_files.so"
}

start() {
    wait=
    if [ "${1-}" = --wait ]; then
        wait=1
        shift
    fi
    library=
    if [ "${1-}" = --library ] && [ $# -ge 2 ]; then
        library=$2
        shift 2
    fi
    [ $# -ge 7 ] && [ "$7" = -- ] || fail 64 "start: wrong arguments"
    pgdata=$1 log=$2 arena=$3 bin=$4 uid=$5 gid=$6
    shift 7
    exec >>"$log" 2>&1 || fail 66 "cannot open $log"
    cd -P "$pgdata" || fail 66 "cannot enter $pgdata"
    pgdata=$PWD # what getcwd prints: the library compares
    [ "$arena" = - ] || [ -n "$library" ] || find_library
    set -- "$bin/postgres" -D "$pgdata" "$@"
    if [ -n "$wait" ]; then
        set -- sh -c '
            while IFS= read -r setting; do
                [ -n "$setting" ] || exec "$@" </dev/null
                set -- "$@" -c "$setting"
            done
            exit 67' neon_launch "$@"
    else
        exec </dev/null
    fi
    set -- "PATH=$bin:/usr/bin:/bin" "LC_ALL=C.UTF-8" ${TZ+"TZ=$TZ"} "$@"
    if [ "$arena" = - ]; then
        set -- env -i "$@"
    else
        # ld.so only warns about a library that it cannot load, and the files would read as zeros;
        # so it is tried as the user that Postgres will be. A path that ld.so would take for two goes
        # by the number of an open file.
        case $library in *[:[:space:]]*) preload=/proc/self/fd/9 ;; *) preload=$library ;; esac
        set -- "LD_PRELOAD=$preload" "NEON_LAZY_ARENA=$arena" "NEON_LAZY_PGDATA=$pgdata" "$@"
        set -- sh -c '
            [ -r "$0" ] && case $0 in *[:[:space:]]*) exec 9<"$0" ;; esac && exec env -i "$@"
            echo "neon_launch: cannot read $0" >&2
            exit 66' "$library" "$@"
    fi
    become "$uid" "$gid" "$@"
}

spare() {
    [ $# = 0 ] || fail 64 "spare: wrong arguments"
    { IFS= read -r library && IFS= read -r pgdata && IFS= read -r log && IFS= read -r arena &&
        IFS= read -r bin && IFS= read -r uid && IFS= read -r gid; } || exit 67
    set -- "$pgdata" "$log" "$arena" "$bin" "$uid" "$gid" --
    [ "$library" = - ] || set -- --library "$library" "$@"
    start --wait "$@"
}

# Becomes a program, under user $1 and group $2 unless that is -.
become() {
    uid=$1 gid=$2
    shift 2
    if [ "$uid" != - ]; then
        is_number "$uid" && is_number "$gid" || fail 64 "not a user and a group: $uid $gid"
        command -v setpriv >/dev/null || fail 66 "cannot find setpriv to run Postgres as $uid"
        set -- setpriv --reuid "$uid" --regid "$gid" --clear-groups --no-new-privs -- "$@"
    fi
    exec "$@"
}

# Before a Postgres makes its shared memory it removes what an earlier one has left that belongs to
# the same directory (PGSharedMemoryCreate, port/sysv_shmem.c). How initdb tries settings goes so far
# and no further: it reads and writes nothing else.
release() {
    [ $# = 4 ] || fail 64 "release: wrong arguments"
    { IFS= read -r major <"$1/PG_VERSION"; } 2>/dev/null || fail 66 "cannot read $1/PG_VERSION"
    case $major in 14) try="--boot -x0" ;; *) try=--check ;; esac
    exec </dev/null >/dev/null 2>&1
    # shellcheck disable=SC2086
    become "$3" "$4" env -i "$2/postgres" $try -D "$1" -c config_file=/dev/null \
        -c shared_buffers=16 -c max_connections=5 -c max_wal_senders=0 -c max_worker_processes=0
}

send_signal() {
    [ $# = 3 ] || fail 64 "signal: wrong arguments"
    case $1 in TERM | INT | QUIT | KILL | HUP | STOP | CONT) ;; *) fail 64 "signal: not $1" ;; esac
    find_process "$2" || exit 3
    [ "$found_start" = "$3" ] || exit 3
    kill -s "$1" "$2"
}

probe() {
    [ $# = 1 ] || fail 64 "probe: wrong arguments"
    find_process "$1" || {
        echo dead
        return
    }
    kind=other
    [ "$found_name" = postgres ] && kind=postgres
    echo "alive $found_start $kind"
}

# Whether the compute host of pid file $1 has ended because it was told to.
ended_orderly() {
    [ -e "$1" ] || return 0
    { read -r _ && IFS= read -r word; } 2>/dev/null <"$1" && [ "$word" = stopped ]
}

guard() {
    [ $# = 4 ] && is_number "$3" && is_number "$4" || fail 64 "guard: wrong arguments"
    pidfile=$1 endpoints=$2 look=$3 limit=$4 gone=0
    command -v flock >/dev/null || fail 66 "cannot find flock to watch the compute host"
    exec 9>"$pidfile.guard" || fail 66 "cannot open $pidfile.guard"
    flock -n 9 || exit 0
    while [ "$gone" -lt "$limit" ]; do
        sleep "$look" 9>&-
        # The next host may be there a moment later: one look decides
        if ended_orderly "$pidfile"; then
            rm -f "$pidfile.guard"
            exit 0
        fi
        # It could not start while we hold the lock, so that is given back at once
        if flock -n -s 8 8<"$pidfile" 9>&-; then gone=$((gone + look)); else gone=0; fi
    done
    for pgdata in "$endpoints"/*/pgdata; do
        IFS= read -r pid 2>/dev/null <"$pgdata/postmaster.pid" || continue
        is_number "$pid" && [ "/proc/$pid/cwd" -ef "$pgdata" ] && kill -s QUIT "$pid"
    done
}

[ $# -ge 1 ] || fail 64 "one of: start, spare, release, signal, probe, boot-id, guard"
command=$1
shift
case $command in
start) start "$@" ;;
spare) spare "$@" ;;
release) release "$@" ;;
signal) send_signal "$@" ;;
probe) probe "$@" ;;
guard) guard "$@" ;;
boot-id) cat /proc/sys/kernel/random/boot_id 2>/dev/null || sysctl -n kern.bootsessionuuid ;;
*) fail 64 "unknown command: $command" ;;
esac
