/*
 * Entropy and the time of day for one simulation, loaded before the C library: every hash order, id and select! drawn
 * from the system is drawn from KUBEEDGE_ENTROPY instead, and the machine's wall clock stands still, so that what
 * still reads it shows. The monotonic clock, from which some libraries draw seeds, goes on by a microsecond each time it
 * is looked at; nothing here waits by it, as time is simulated.
 */
#define _GNU_SOURCE
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/types.h>
#include <time.h>

/* 2030-01-01T00:00:00Z */
#define STANDS_AT 1893456000

static int threads;
static __thread uint64_t state;
static __thread int seeded;

static uint64_t next(void) {
    if (!seeded) {
        const char *seed = getenv("KUBEEDGE_ENTROPY");
        seeded = 1;
        state = (seed ? strtoull(seed, NULL, 10) : 0) * 0x9e3779b97f4a7c15u
              + (uint64_t)__sync_fetch_and_add(&threads, 1);
    }
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

ssize_t getrandom(void *into, size_t length, unsigned int flags) {
    unsigned char *bytes = into;
    (void)flags;
    for (size_t at = 0; at < length; at += 8) {
        uint64_t word = next();
        for (size_t byte = at; byte < length && byte < at + 8; byte++, word >>= 8) bytes[byte] = word;
    }
    return (ssize_t)length;
}

int getentropy(void *into, size_t length) {
    getrandom(into, length, 0);
    return 0;
}

int clock_gettime(clockid_t which, struct timespec *at) {
    static uint64_t looks;
    int stands = which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE;
    uint64_t passed = stands ? 0 : __sync_add_and_fetch(&looks, 1);
    at->tv_sec = (stands ? STANDS_AT : 1000) + (time_t)(passed / 1000000);
    at->tv_nsec = (long)(passed % 1000000) * 1000;
    return 0;
}
