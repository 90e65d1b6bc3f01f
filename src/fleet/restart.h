/*
 * restart - when a dead engine is started again, and when not.  Pure.
 *
 * The wait doubles from 0.25 s to 30 s, with a fifth of jitter so that several
 * engines that died of one cause do not come back in step.  It begins anew
 * when the engine had been ready for a while.  Engines that die five times
 * within a minute without once becoming ready are in a crash loop: given up.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum {
    RESTART_FIRST_MS = 250,
    RESTART_MOST_MS = 30000,
    RESTART_CALM_MS = 10000, /* ready for so long: the next wait is the first again */
    RESTART_LOOP_DEATHS = 5,
    RESTART_LOOP_MS = 60000
};

struct restart {
    unsigned waits;                      /* since it was last calm */
    uint64_t early[RESTART_LOOP_DEATHS]; /* when it died without having been ready; a ring */
    unsigned nearly;                     /* how many since it was last ready */
};

/*
 * A death at now_ms; ready_ms: how long it had been ready in this life, 0 if
 * never.  random: any 32 bits.  True: start again after *wait_ms.  False: a
 * crash loop.
 */
bool restart_death(struct restart *r, uint64_t now_ms, uint64_t ready_ms, uint32_t random,
                   uint64_t *wait_ms);
