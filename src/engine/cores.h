/*
 * cores - how many threads are worth starting here.
 */
#pragma once

/* Physical cores that this process may use: the affinity mask, one for each
 * core with its hyper-threads, bounded by the cgroup's CPU quota; at least 1. */
int cores_usable(void);
