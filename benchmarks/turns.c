/* Measures each turn of a libuv loop: how long its thread was on a CPU, and how long it took by the clock.
 *
 * LD_PRELOADed by benchmarks/turns.py. A turn lasts from the return of epoll_pwait in the main thread until the next
 * call of it. Records of three 64-bit numbers (end by CLOCK_MONOTONIC, CPU time, time by the clock; all in ns) are
 * appended to $WATCHOUT_BENCH_TURNS/<pid>.turns.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { RECORDS = 1024 };

struct record {
    int64_t end, cpu, wall;
};

static int (*wait_really)(int, struct epoll_event *, int, int, const sigset_t *);
static struct record records[RECORDS];
static int filled, out = -1, in_turn;
static int64_t cpu_began, wall_began;

static int64_t now(clockid_t clock) {
    struct timespec at;
    clock_gettime(clock, &at);
    return at.tv_sec * 1000000000LL + at.tv_nsec;
}

static void flush(void) {
    if (out >= 0 && filled && write(out, records, filled * sizeof *records) < 0)
        out = -1;
    filled = 0;
}

static void begin(void) {
    const char *folder = getenv("WATCHOUT_BENCH_TURNS");
    char path[4096];
    wait_really = (int (*)(int, struct epoll_event *, int, int, const sigset_t *))dlsym(RTLD_NEXT, "epoll_pwait");
    if (!wait_really)
        abort();
    if (folder && snprintf(path, sizeof path, "%s/%d.turns", folder, getpid()) < (int)sizeof path)
        out = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    atexit(flush);
}

int epoll_pwait(int epoll, struct epoll_event *events, int most, int timeout, const sigset_t *mask) {
    int main_thread = getpid() == (int)syscall(SYS_gettid), found;
    if (!wait_really)
        begin();
    if (main_thread && in_turn && out >= 0) {
        int64_t cpu = now(CLOCK_THREAD_CPUTIME_ID), end = now(CLOCK_MONOTONIC);
        records[filled++] = (struct record){end, cpu - cpu_began, end - wall_began};
        if (filled == RECORDS)
            flush();
    }
    found = wait_really(epoll, events, most, timeout, mask);
    if (main_thread) {
        in_turn = 1;
        wall_began = now(CLOCK_MONOTONIC);
        cpu_began = now(CLOCK_THREAD_CPUTIME_ID);
    }
    return found;
}
