/* gateway/counters - see counters.h. */
#include "gateway/counters.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

uint64_t replica_row_in_flight(const struct replica_row *r)
{
    /* Ends are read before starts: a row in use may look busier than it is, never idler. */
    uint64_t ended = counter_read(&r->finished) + counter_read(&r->failed) +
                     counter_read(&r->truncated) + counter_read(&r->cancelled) +
                     counter_read(&r->retried);
    atomic_thread_fence(memory_order_acquire);
    uint64_t begun = counter_read(&r->started) + counter_read(&r->pinned);

    return begun > ended ? begun - ended : 0;
}

int counters_create(struct err *err)
{
    int fd = memfd_create("segue-counters", MFD_CLOEXEC);
    uint64_t version = COUNTERS_VERSION;

    if (fd < 0 || ftruncate(fd, sizeof(struct counters)) < 0 ||
        pwrite(fd, &version, sizeof(version), 0) != sizeof(version)) {
        err_set(err, 500, "cannot make the counters segment: %s", strerror(errno));
        if (fd >= 0)
            close(fd);
        return -1;
    }
    return fd;
}

struct counters *counters_map(int fd, struct err *err)
{
    struct stat st;

    if (fstat(fd, &st) < 0 || st.st_size != (off_t)sizeof(struct counters)) {
        err_set(err, 500, "the counters segment does not have the size of this version of segue");
        return NULL;
    }
    struct counters *c =
        mmap(NULL, sizeof(struct counters), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (c == MAP_FAILED) {
        err_set(err, 500, "cannot map the counters segment: %s", strerror(errno));
        return NULL;
    }
    if (c->version != COUNTERS_VERSION) {
        err_set(err, 500, "the counters segment has layout %llu, this segue needs %d",
                (unsigned long long)c->version, COUNTERS_VERSION);
        counters_unmap(c);
        return NULL;
    }
    return c;
}

void counters_unmap(struct counters *c)
{
    if (c)
        munmap(c, sizeof(*c));
}

/* A row that was never written costs no memory; reading it would not either
 * (the kernel maps its zero page), but there are 65,536 of them. */
uint64_t counters_settle(struct counters *c)
{
    uint64_t lost = 0;

    for (size_t slot = 0; slot < COUNTERS_SLOTS; slot++) {
        for (size_t w = 0; w < COUNTERS_WORKERS; w++) {
            struct replica_row *r = &c->replicas[slot][w];
            uint64_t open = replica_row_in_flight(r);
            if (open == 0)
                continue;
            counter_add(&r->truncated, open);
            lost += open;
        }
    }
    for (size_t w = 0; w < COUNTERS_WORKERS; w++) {
        struct worker_row *r = &c->workers[w];
        counter_add(&r->closed, counter_read(&r->opened) - counter_read(&r->closed));
        counter_add(&r->unheld, counter_read(&r->held_total) - counter_read(&r->unheld));
    }
    return lost;
}
