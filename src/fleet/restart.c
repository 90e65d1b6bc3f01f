/* restart - see restart.h. */
#include "fleet/restart.h"

static uint64_t next_wait(struct restart *r, uint32_t random)
{
    uint64_t wait = RESTART_FIRST_MS;

    for (unsigned i = 0; i < r->waits && wait < RESTART_MOST_MS; i++)
        wait *= 2;
    r->waits++;
    wait = wait * 4 / 5 + wait * 2 / 5 * (uint64_t)random / UINT32_MAX;
    return wait < RESTART_MOST_MS ? wait : RESTART_MOST_MS;
}

bool restart_death(struct restart *r, uint64_t now_ms, uint64_t ready_ms, uint32_t random,
                   uint64_t *wait_ms)
{
    if (ready_ms >= RESTART_CALM_MS)
        r->waits = 0;
    if (ready_ms > 0) {
        r->nearly = 0;
    } else {
        r->early[r->nearly++ % RESTART_LOOP_DEATHS] = now_ms;
        /* The next place in the ring holds the oldest of the last five. */
        if (r->nearly >= RESTART_LOOP_DEATHS &&
            now_ms - r->early[r->nearly % RESTART_LOOP_DEATHS] <= RESTART_LOOP_MS)
            return false;
    }
    *wait_ms = next_wait(r, random);
    return true;
}
