/*
 * cores - see cores.h.
 *
 * Two hyper-threads of one core share its multipliers: for matrices the second
 * one only gets in the way.
 */
#include "engine/cores.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "base/span.h"

/* The first CPU number in the list of a core's siblings ("0,64" or "0-1"); the
 * CPU itself when the kernel does not say. */
static int first_sibling(int cpu)
{
    char path[96];
    int first = cpu;

    snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list",
             cpu);
    FILE *f = fopen(path, "re");
    if (!f)
        return cpu;
    if (fscanf(f, "%d", &first) != 1)
        first = cpu;
    fclose(f);
    return first;
}

/* CPUs that the cgroup's quota (version 2) pays for, or 0 without a quota. */
static int quota(void)
{
    long long max, period;
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "re");

    if (!f)
        return 0;
    int got = fscanf(f, "%lld %lld", &max, &period);
    fclose(f);
    if (got != 2 || max <= 0 || period <= 0)
        return 0; /* "max": no quota */
    return (int)((max + period - 1) / period);
}

int cores_usable(void)
{
    cpu_set_t mine, taken;
    int n = 0;

    CPU_ZERO(&taken);
    if (sched_getaffinity(0, sizeof(mine), &mine) < 0)
        return 1;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &mine))
            continue;
        int core = first_sibling(cpu);
        if (core < 0 || core >= CPU_SETSIZE || CPU_ISSET(core, &taken))
            continue;
        CPU_SET(core, &taken);
        n++;
    }
    int paid = quota();
    if (paid && paid < n)
        n = paid;
    return n > 0 ? n : 1;
}
